//! What can be asked of an authority, and how often each suite asks for it.

use palisade_ioasid::{Data, FaultCode, Limit, PasidRange, Priority, Quota};
use palisade_units::{Bdf, GuestPasid, HostPasid, PASID_COUNT, TenantId};
use proptest::prelude::*;
use proptest::strategy::Union;

/// Numbers that may be given out: 1 to this. Few, so that operations meet.
pub(crate) const CAPACITY: u32 = 9;

/// A place in a list, counted from its newest entry and round again, so that each number names one.
pub(crate) type Pick = usize;

/// Where in a list of this length a pick is. None where the list is empty.
pub(crate) fn place_of(pick: Pick, len: usize) -> Option<usize> {
    (len > 0).then(|| len - 1 - pick % len)
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    CreateSet(TenantId, Quota),
    CreateSetIn(Pick, TenantId, Quota),
    ShareSet(Pick),
    DropSet(Pick),
    Close(Pick),
    Adjust(Pick, u32),
    Alloc(Pick, PasidRange),
    Free(Pick, HostPasid),
    FreeRange(Pick, PasidRange),
    SetData(Pick, HostPasid, Option<Data>),
    Look(Pick, HostPasid),
    Owned(Pick, PasidRange),
    Hold(Pick, HostPasid),
    CloneHold(Pick),
    DropHold(Pick),
    Put(Pick),
    Bind(Pick, Bdf),
    HoldOfMark(Pick),
    Unbind(Pick),
    Fault(HostPasid, Bdf, FaultCode),
    Attach(Pick, GuestPasid, HostPasid),
    Detach(Pick, GuestPasid),
    FindGuest(Pick, GuestPasid),
    CreateGroup(Pick, Limit),
    RemoveGroup(Pick),
    SetGroupMax(Pick, Limit),
    GroupUsage(Pick),
    Reserve(PasidRange),
    /// One of the reserved ranges in ascending order, or a range that may be none of them.
    Unreserve(usize),
    Register(usize),
    Unregister(usize),
    Listen(Priority),
    ListenToSet(Pick, Priority),
    Unlisten(Pick),
    /// Lets go of every PASID.
    Quiet,
}

/// How often each family of operations is asked for, beside the others.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) sets: u32,
    pub(crate) ids: u32,
    pub(crate) holds: u32,
    pub(crate) guests: u32,
    pub(crate) limits: u32,
    pub(crate) customs: u32,
    pub(crate) listeners: u32,
}

/// At most so many operations on one authority.
const LONGEST: usize = 2000;

pub(crate) fn sequences(mix: Mix) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(mix), 1..=LONGEST)
}

fn op(mix: Mix) -> Union<BoxedStrategy<Op>> {
    let families = vec![
        (mix.sets, sets().boxed()),
        (mix.ids, ids().boxed()),
        (mix.holds, holds().boxed()),
        (mix.guests, guests().boxed()),
        (mix.limits, limits().boxed()),
        (mix.customs, customs().boxed()),
        (mix.listeners, listeners().boxed()),
    ];
    Union::new_weighted(families.into_iter().filter(|f| f.0 > 0).collect())
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![3 => 0..2usize, 1 => 0..16usize]
}

fn host() -> impl Strategy<Value = HostPasid> {
    let number = prop_oneof![30 => 0..CAPACITY + 2, 1 => Just(PASID_COUNT - 1)];
    number.prop_map(|number| HostPasid::new(number).unwrap())
}

fn guest() -> impl Strategy<Value = GuestPasid> {
    let number = prop_oneof![0..4u32, Just(PASID_COUNT - 1)];
    number.prop_map(|number| GuestPasid::new(number).unwrap())
}

fn place() -> impl Strategy<Value = Bdf> {
    (0..3u8).prop_map(|device| Bdf::new(0, device, 0))
}

fn range() -> impl Strategy<Value = PasidRange> {
    let beyond = prop::sample::select(vec![PASID_COUNT - 1, PASID_COUNT, u32::MAX]);
    let end = prop_oneof![12 => 0..CAPACITY + 2, 1 => beyond];
    prop_oneof![
        2 => Just(PasidRange::ALL),
        2 => (0..CAPACITY + 2).prop_map(PasidRange::only),
        6 => (end.clone(), end).prop_map(|(min, max)| PasidRange { min, max }),
    ]
}

fn tenant() -> impl Strategy<Value = TenantId> {
    (0..3u32).prop_map(TenantId::new)
}

fn quota() -> impl Strategy<Value = Quota> {
    prop_oneof![
        6 => (0..CAPACITY).prop_map(Quota::Exactly),
        1 => Just(Quota::Exactly(u32::MAX)),
        2 => Just(Quota::AllThatIsLeft),
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        3 => (0..CAPACITY).prop_map(Limit::Max),
        2 => Just(Limit::Unlimited),
    ]
}

fn priority() -> impl Strategy<Value = Priority> {
    use Priority::{Cpu, Device, Iommu, Last};
    prop::sample::select(vec![Cpu, Iommu, Device, Last])
}

fn sets() -> impl Strategy<Value = Op> {
    let adjusted = prop_oneof![9 => 0..CAPACITY + 2, 1 => Just(u32::MAX)];
    prop_oneof![
        5 => (tenant(), quota()).prop_map(|(t, q)| Op::CreateSet(t, q)),
        5 => (pick(), tenant(), quota()).prop_map(|(g, t, q)| Op::CreateSetIn(g, t, q)),
        1 => pick().prop_map(Op::ShareSet),
        3 => pick().prop_map(Op::DropSet),
        1 => pick().prop_map(Op::Close),
        4 => (pick(), adjusted).prop_map(|(s, q)| Op::Adjust(s, q)),
    ]
}

fn ids() -> impl Strategy<Value = Op> {
    let data = prop::option::of((0..9u64).prop_map(Data));
    prop_oneof![
        20 => (pick(), range()).prop_map(|(s, r)| Op::Alloc(s, r)),
        6 => (pick(), host()).prop_map(|(s, p)| Op::Free(s, p)),
        1 => (pick(), range()).prop_map(|(s, r)| Op::FreeRange(s, r)),
        3 => (pick(), host(), data).prop_map(|(s, p, d)| Op::SetData(s, p, d)),
        4 => (pick(), host()).prop_map(|(s, p)| Op::Look(s, p)),
        2 => (pick(), range()).prop_map(|(s, r)| Op::Owned(s, r)),
    ]
}

fn holds() -> impl Strategy<Value = Op> {
    let code = (0..=u8::MAX).prop_map(FaultCode::new);
    prop_oneof![
        8 => (pick(), host()).prop_map(|(s, p)| Op::Hold(s, p)),
        1 => pick().prop_map(Op::CloneHold),
        2 => pick().prop_map(Op::DropHold),
        2 => pick().prop_map(Op::Put),
        5 => (pick(), place()).prop_map(|(h, b)| Op::Bind(h, b)),
        1 => pick().prop_map(Op::HoldOfMark),
        5 => pick().prop_map(Op::Unbind),
        1 => (host(), place(), code).prop_map(|(p, b, c)| Op::Fault(p, b, c)),
    ]
}

fn guests() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (pick(), guest(), host()).prop_map(|(s, g, p)| Op::Attach(s, g, p)),
        1 => (pick(), guest()).prop_map(|(s, g)| Op::Detach(s, g)),
        2 => (pick(), guest()).prop_map(|(s, g)| Op::FindGuest(s, g)),
    ]
}

fn limits() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (pick(), limit()).prop_map(|(g, l)| Op::CreateGroup(g, l)),
        2 => pick().prop_map(Op::RemoveGroup),
        3 => (pick(), limit()).prop_map(|(g, l)| Op::SetGroupMax(g, l)),
        2 => pick().prop_map(Op::GroupUsage),
        3 => range().prop_map(Op::Reserve),
        3 => (0..4usize).prop_map(Op::Unreserve),
    ]
}

fn customs() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Quiet),
        5 => (0..3usize).prop_map(Op::Register),
        2 => (0..3usize).prop_map(Op::Unregister),
    ]
}

fn listeners() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => priority().prop_map(Op::Listen),
        2 => (pick(), priority()).prop_map(|(s, p)| Op::ListenToSet(s, p)),
        3 => pick().prop_map(Op::Unlisten),
    ]
}
