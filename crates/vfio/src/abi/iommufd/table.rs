//! IOMMU_HWPT_ALLOC.

use palisade_iommu::{
    ExtendedAccessed, FirstStage, Levels, NoExecute, Space, SupervisorRequests, WriteProtect,
};
use palisade_units::Gpa;

use super::argument::{Message, extended, known_flags, reserved};
use super::layout::{
    HWPT_DATA_NONE, HWPT_DATA_VTD_S1, HWPT_FAULT_ID_VALID, HWPT_NEST_PARENT, HWPT_PASID, HwptAlloc,
    HwptVtdStage1, VTD_S1_EAFE, VTD_S1_SRE, VTD_S1_WPE,
};
use super::objects::{Asked, MadeBy, Object, Objects, Stage, Table};
use super::{Iommufd, IommufdError, ObjectId};
use crate::Terms;
use crate::abi::{Answer, Nested};

/// What the shortest data has.
const SHORTEST_DATA: u32 = HwptVtdStage1::BYTES;

pub(super) fn alloc(session: &Iommufd, message: Message<'_>) -> Result<Answer, IommufdError> {
    let mut request: HwptAlloc = message.read()?;
    let flags = request.flags.get();
    reserved(request.reserved.get() | request.reserved_2.get())?;
    let has_data = request.data_type.get() != HWPT_DATA_NONE;
    if has_data != (request.data_len.get() != 0) {
        return Err(IommufdError::Value(
            "data has a type and a length, or neither",
        ));
    }
    let nested = session.vmm().nested;
    let pasids = Asked::of(flags, HWPT_PASID);
    if pasids == Asked::Yes && !nested.has_pasids() {
        return Err(IommufdError::NotOffered("PASIDs"));
    }
    let mut objects = session.objects();
    objects.device(ObjectId::new(request.dev_id.get()))?;
    let over = ObjectId::new(request.pt_id.get());
    let (stage, memory) = match objects.get(over)? {
        Object::Space(memory) => {
            known_flags(flags, HWPT_NEST_PARENT | HWPT_FAULT_ID_VALID | HWPT_PASID)?;
            if has_data {
                return Err(IommufdError::NotOffered("data for a table of a space"));
            }
            let parent = Asked::of(flags, HWPT_NEST_PARENT);
            if parent == Asked::Yes && !nested.has_format() {
                return Err(IommufdError::NotOffered("nesting"));
            }
            if parent == Asked::Yes && flags & HWPT_FAULT_ID_VALID != 0 {
                return Err(IommufdError::NotOffered("page requests of a parent"));
            }
            (Stage::OfSpace { parent }, memory.clone())
        }
        Object::Table(_) | Object::VirtualUnit(_) => {
            known_flags(flags, HWPT_FAULT_ID_VALID | HWPT_PASID)?;
            let memory = parent_of(&objects, over)?.memory.clone();
            if request.data_type.get() != HWPT_DATA_VTD_S1 {
                return Err(IommufdError::NotOffered("data of that type"));
            }
            let len_bytes = request.data_len.get();
            if len_bytes < SHORTEST_DATA {
                return Err(IommufdError::Short {
                    size: len_bytes,
                    shortest: SHORTEST_DATA,
                });
            }
            let data = message.data(request.data_uptr.get(), len_bytes.into())?;
            let stage = first_stage(&extended(data)?, &nested)?;
            let terms = Terms::new(Space::FirstStage(stage));
            (Stage::Nested(terms), memory)
        }
        _ => {
            return Err(IommufdError::Value(
                "a table is of an IOAS, a HWPT or a virtual unit",
            ));
        }
    };
    let faults = match flags & HWPT_FAULT_ID_VALID {
        0 => None,
        _ => {
            let id = ObjectId::new(request.fault_id.get());
            Some((id, objects.fault_queue(id)?.clone()))
        }
    };
    let id = objects.add(Object::Table(Table {
        stage,
        over,
        memory,
        pasids,
        faults,
        made_by: MadeBy::Client,
    }))?;
    request.out_hwpt_id = id.get().into();
    Ok(message.written(&request))
}

/// The table that others may be nested in: this one, or the one that this virtual unit is over.
pub(super) fn parent_of(objects: &Objects, id: ObjectId) -> Result<&Table, IommufdError> {
    let table = match objects.get(id)? {
        Object::VirtualUnit(parent) => objects.table(*parent)?,
        _ => objects.table(id)?,
    };
    match table.stage {
        Stage::OfSpace { parent: Asked::Yes } => Ok(table),
        _ => Err(IommufdError::Value(
            "the table was made without IOMMU_HWPT_ALLOC_NEST_PARENT",
        )),
    }
}

fn first_stage(data: &HwptVtdStage1, nested: &Nested) -> Result<FirstStage, IommufdError> {
    let flags = data.flags.get();
    if flags & !(VTD_S1_SRE | VTD_S1_EAFE | VTD_S1_WPE) != 0 {
        return Err(IommufdError::NotOffered("a flag of a first stage"));
    }
    reserved(data.reserved.get())?;
    for (flag, is_had) in [
        (VTD_S1_SRE, nested.has_supervisor_requests()),
        (VTD_S1_EAFE, nested.has_extended_accessed()),
    ] {
        if flags & flag != 0 && !is_had {
            return Err(IommufdError::Value(
                "the unit does not have this flag of a first stage",
            ));
        }
    }
    let levels = match data.addr_width.get() {
        48 => Levels::Four,
        57 if nested.address_bits >= 57 => Levels::Five,
        _ => {
            return Err(IommufdError::Value(
                "a first stage translates 48 bits, or 57 where the unit does",
            ));
        }
    };
    let root = Gpa::new(data.pgtbl_addr.get());
    if root.page_offset() != 0 {
        return Err(IommufdError::Value(
            "the top table does not start at a page",
        ));
    }
    let mut stage = FirstStage::new(root, levels);
    stage.supervisor = SupervisorRequests::from_bit(flags & VTD_S1_SRE != 0);
    stage.extended_accessed = ExtendedAccessed::from_bit(flags & VTD_S1_EAFE != 0);
    stage.write_protect = WriteProtect::from_bit(flags & VTD_S1_WPE != 0);
    // As where a unit reads the entry: bit 63 of a table entry always means no execution.
    stage.no_execute = NoExecute::Honoured;
    Ok(stage)
}
