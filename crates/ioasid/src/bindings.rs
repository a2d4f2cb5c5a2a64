//! In which tables each PASID is, and how often.

use std::collections::HashMap;

use palisade_units::{Bdf, HostPasid};

use crate::labels::Label;

/// A function in whose table a PASID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The function.
    pub place: Bdf,
    /// How many entries say so: mediated devices of one parent may share one, and each counts.
    pub entries: u32,
}

/// What does not fit a label, which has one place. Most PASIDs are in the table of one function.
#[derive(Default)]
pub(crate) struct Bindings {
    elsewhere: HashMap<HostPasid, Vec<Binding>>,
}

impl Bindings {
    /// One more entry. Says whether it is the first anywhere.
    pub(crate) fn add(&mut self, pasid: HostPasid, label: &mut Label, place: Bdf) -> bool {
        let is_first = !self.any(pasid, label);
        let is_here = label.place == place.requester_id();
        if label.entries == 0 || (is_here && label.entries < u16::MAX) {
            label.place = place.requester_id();
            label.entries += 1;
            return is_first;
        }
        let others = self.elsewhere.entry(pasid).or_default();
        match others.iter_mut().find(|other| other.place == place) {
            Some(other) => other.entries += 1,
            None => others.push(Binding { place, entries: 1 }),
        }
        is_first
    }

    /// One entry less. Says whether it was the last anywhere.
    pub(crate) fn remove(&mut self, pasid: HostPasid, label: &mut Label, place: Bdf) -> bool {
        if label.entries > 0 && label.place == place.requester_id() {
            label.entries -= 1;
        } else if let Some(others) = self.elsewhere.get_mut(&pasid) {
            for other in others.iter_mut().filter(|other| other.place == place) {
                other.entries -= 1;
            }
            others.retain(|other| other.entries > 0);
            if others.is_empty() {
                self.elsewhere.remove(&pasid);
            }
        }
        !self.any(pasid, label)
    }

    /// Where a PASID is, by function.
    pub(crate) fn of(&self, pasid: HostPasid, label: &Label) -> Vec<Binding> {
        let mut all = self.elsewhere.get(&pasid).cloned().unwrap_or_default();
        if label.entries > 0 {
            let place = Bdf::from_requester_id(label.place);
            let entries = u32::from(label.entries);
            match all.iter_mut().find(|other| other.place == place) {
                Some(other) => other.entries += entries,
                None => all.push(Binding { place, entries }),
            }
        }
        all.sort_unstable_by_key(|binding| binding.place.requester_id());
        all
    }

    fn any(&self, pasid: HostPasid, label: &Label) -> bool {
        label.entries > 0 || self.elsewhere.contains_key(&pasid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use zerocopy::FromZeros;

    proptest! {
        #[test]
        fn places_are_counted_as_in_a_plain_map(
            steps in prop::collection::vec((any::<bool>(), 0..4u16), 0..200)
        ) {
            let pasid = HostPasid::new(7).unwrap();
            let mut label = Label::new_zeroed();
            // Near its end, so that the label's own count overflows into the map.
            label.place = 2;
            label.entries = u16::MAX - 3;
            let mut model = BTreeMap::from([(2_u16, u32::from(label.entries))]);
            let mut bindings = Bindings::default();
            for (adds, id) in steps {
                let place = Bdf::from_requester_id(id);
                if adds {
                    let is_first = bindings.add(pasid, &mut label, place);
                    prop_assert_eq!(is_first, model.is_empty());
                    *model.entry(id).or_default() += 1;
                } else if let Some(count) = model.get_mut(&id) {
                    *count -= 1;
                    model.retain(|_, count| *count > 0);
                    let was_last = bindings.remove(pasid, &mut label, place);
                    prop_assert_eq!(was_last, model.is_empty());
                }
                let found = bindings.of(pasid, &label).into_iter();
                let found: BTreeMap<u16, u32> =
                    found.map(|one| (one.place.requester_id(), one.entries)).collect();
                prop_assert_eq!(&found, &model);
            }
        }
    }

    #[test]
    fn the_last_entry_anywhere_leaves_nothing_behind() {
        let pasid = HostPasid::new(7).unwrap();
        let mut label = Label::new_zeroed();
        let mut bindings = Bindings::default();
        let [here, there] = [1, 2].map(Bdf::from_requester_id);
        assert!(bindings.add(pasid, &mut label, here));
        assert!(!bindings.add(pasid, &mut label, there));
        assert!(!bindings.remove(pasid, &mut label, here));
        assert!(bindings.remove(pasid, &mut label, there));
        assert!(bindings.elsewhere.is_empty());
        assert!(bindings.add(pasid, &mut label, there));
    }
}
