//! The file as it is written, before anything is checked.

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) control: Option<String>,
    pub(super) state: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) reserved: Vec<Spanned<Vec<i64>>>,
    #[serde(default, rename = "group")]
    pub(super) groups: Vec<Spanned<Group>>,
    #[serde(default, rename = "parent")]
    pub(super) parents: Vec<Spanned<Parent>>,
    #[serde(default, rename = "tenant")]
    pub(super) tenants: Vec<Spanned<Tenant>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: Spanned<String>,
    pub(super) max: Option<Spanned<i64>>,
    pub(super) parent: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parent {
    pub(super) name: Spanned<String>,
    pub(super) bdf: Spanned<String>,
    pub(super) sharing: Option<Spanned<String>>,
    pub(super) queues: Option<Spanned<i64>>,
    pub(super) engines: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tenant {
    pub(super) name: Spanned<String>,
    pub(super) quota: Option<Spanned<i64>>,
    pub(super) group: Option<Spanned<String>>,
    pub(super) unit: Option<Spanned<Unit>>,
    pub(super) container: Option<Spanned<Container>>,
    #[serde(default, rename = "function")]
    pub(super) functions: Vec<Spanned<Function>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Container {
    pub(super) socket: Spanned<String>,
    pub(super) uids: Option<Vec<Spanned<i64>>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) owner: Option<Spanned<i64>>,
    pub(super) group: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unit {
    pub(super) socket: Spanned<String>,
    pub(super) guest_bdf: Option<Spanned<String>>,
    pub(super) virtual_commands: Option<Spanned<String>>,
    pub(super) caching_mode: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    pub(super) parent: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) uuid: Option<Spanned<String>>,
    pub(super) socket: Spanned<String>,
    pub(super) guest_bdf: Option<Spanned<String>>,
}
