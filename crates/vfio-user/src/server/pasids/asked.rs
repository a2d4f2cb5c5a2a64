use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use rustix::io::Errno;

use crate::wire::{
    Command,
    pasid::{MAX_PAGE_GROUPS, PasidCapability},
};

/// What is to be done with an answer: a payload, or the errno of a refusal, and how many invalidations came
/// before it.
pub(in crate::server) type OnAnswer =
    Box<dyn FnOnce(Result<&[u8], Errno>, u64) -> Result<(), NotAnAnswer> + Send>;

/// What came does not answer what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAnAnswer;

struct Question {
    command: Command,
    /// The index of a page request group.
    group: Option<u16>,
    on_answer: OnAnswer,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("command", &self.command)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

/// The commands of the extension that the peer has not answered, by their message ids.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    agreed: Option<PasidCapability>,
    questions: HashMap<u16, Question>,
    groups: BTreeSet<u16>,
}

impl Asked {
    pub(crate) fn agree(&mut self, agreed: Option<PasidCapability>) {
        self.agreed = agreed;
    }

    pub(crate) fn agreed(&self) -> Option<PasidCapability> {
        self.agreed
    }

    /// Nothing will be answered any more.
    pub(crate) fn clear(&mut self) {
        self.questions.clear();
        self.groups.clear();
    }

    /// Whether one more command may be sent that is no page request.
    pub(super) fn has_room(&self) -> bool {
        let commands = self.questions.len() - self.groups.len();
        let limit = self.agreed.map_or(0, |agreed| agreed.max_commands);
        commands < usize::from(limit)
    }

    /// The lowest index that no waiting group has, if one more may be sent.
    pub(super) fn free_group(&self) -> Option<u16> {
        let limit = self.agreed.map_or(0, |agreed| agreed.max_page_groups);
        if self.groups.len() >= usize::from(limit) {
            return None;
        }
        (0..MAX_PAGE_GROUPS).find(|group| !self.groups.contains(group))
    }

    /// An id that no unanswered question has, after the last one that was used.
    pub(super) fn free_id(&self, last: u16) -> u16 {
        let mut id = last.wrapping_add(1);
        while self.questions.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        id
    }

    pub(super) fn expect(
        &mut self,
        id: u16,
        command: Command,
        group: Option<u16>,
        on_answer: OnAnswer,
    ) {
        self.groups.extend(group);
        let question = Question {
            command,
            group,
            on_answer,
        };
        self.questions.insert(id, question);
    }

    /// Takes the question that a reply answers; `None` where there is none.
    pub(in crate::server) fn take(&mut self, id: u16, command: Command) -> Option<OnAnswer> {
        if self.questions.get(&id)?.command != command {
            return None;
        }
        let question = self.questions.remove(&id)?;
        if let Some(group) = question.group {
            self.groups.remove(&group);
        }
        Some(question.on_answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore() -> OnAnswer {
        Box::new(|_, _| Ok(()))
    }

    #[test]
    fn ids_and_groups_are_used_once_at_a_time() {
        let mut asked = Asked::default();
        assert!(!asked.has_room() && asked.free_group().is_none());
        asked.agree(Some(PasidCapability {
            max_commands: 2,
            max_page_groups: 1,
            ..PasidCapability::default()
        }));
        asked.expect(0, Command::PasidDmaRead, None, ignore());
        assert_eq!(asked.free_id(u16::MAX), 1);
        assert_eq!(asked.free_group(), Some(0));
        asked.expect(1, Command::PasidPageRequest, Some(0), ignore());
        assert_eq!(asked.free_group(), None);
        assert!(asked.has_room());
        asked.expect(2, Command::PasidTranslate, None, ignore());
        assert!(!asked.has_room());

        assert!(asked.take(1, Command::PasidDmaRead).is_none());
        assert!(asked.take(1, Command::PasidPageRequest).is_some());
        assert!(asked.take(1, Command::PasidPageRequest).is_none());
        assert_eq!(asked.free_group(), Some(0));
    }
}
