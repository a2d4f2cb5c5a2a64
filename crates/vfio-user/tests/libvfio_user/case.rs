//! What a case asks for, and what this server does with it.

/// One of libvfio-user's files of tests.
pub(crate) struct File {
    /// Its name without the folder.
    pub(crate) name: &'static str,
    /// Its cases, in their order, without those that only set up or tear down.
    pub(crate) cases: &'static [Case],
}

/// A case.
pub(crate) struct Case {
    /// The function's name.
    pub(crate) name: &'static str,
    /// What must be accepted, or with what it must be refused.
    pub(crate) asks: &'static str,
    /// What this server does.
    pub(crate) ours: Ours,
}

/// What this server does with a case.
pub(crate) enum Ours {
    /// The same, as a test shows.
    Same(&'static str),
    /// Something else, as a test shows, and for what reason.
    Differs(&'static str, &'static str),
    /// There is nothing to which the case applies, for what reason.
    None(&'static str),
}

pub(crate) const fn same(name: &'static str, asks: &'static str, test: &'static str) -> Case {
    let ours = Ours::Same(test);
    Case { name, asks, ours }
}

pub(crate) const fn differs(
    name: &'static str,
    asks: &'static str,
    test: &'static str,
    why: &'static str,
) -> Case {
    let ours = Ours::Differs(test, why);
    Case { name, asks, ours }
}

pub(crate) const fn none(name: &'static str, asks: &'static str, why: &'static str) -> Case {
    let ours = Ours::None(why);
    Case { name, asks, ours }
}
