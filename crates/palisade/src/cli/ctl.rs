use std::{
    fmt::Display,
    io::{Write, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::Subcommand;
use palisade_host::{
    config::FunctionKind,
    control::{self, Change, NewLimit, NewQuota, Refusal},
};
use serde::Serialize;

use super::{nobody_listens, say};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The control socket that the host's configuration names
    #[arg(
        long,
        value_name = "PATH",
        global = true,
        default_value = "control.sock"
    )]
    socket: PathBuf,
    /// Print one JSON document, or with `events --follow` one a line for each event; an error is one too
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Who holds which PASID, since when, and bound where
    Ledger,
    /// What happened to PASIDs: allocated, bound, refused, freed
    Events {
        /// From this event on
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
        /// Go on with what happens from now on, until interrupted
        #[arg(long)]
        follow: bool,
    },
    /// The tree of limits above the tenants: max, current, and how often each refused
    Groups,
    /// Which PASIDs are kept for the host's own users
    Reserved,
    /// Set how many PASIDs a tenant may have out, connected or not
    Quota {
        /// The tenant in the configuration
        tenant: String,
        /// How many, or "configured" for what the configuration says
        #[arg(value_parser = new_quota, allow_negative_numbers = true)]
        quota: NewQuota,
    },
    /// Make, limit or remove a group
    #[command(subcommand)]
    Group(Group),
    /// List, make or remove functions of tenants: slices of parents, and whole ones
    #[command(subcommand)]
    Mdev(Mdev),
    /// Keep PASIDs for the host's own users, all of the range or none
    Reserve {
        /// The range
        #[arg(value_name = "MIN[-MAX]", value_parser = range)]
        range: (u32, u32),
    },
    /// Give back a range that was reserved at run time, named as it was then
    Unreserve {
        /// The range
        #[arg(value_name = "MIN[-MAX]", value_parser = range)]
        range: (u32, u32),
    },
}

#[derive(Debug, Subcommand)]
enum Group {
    /// Make a group that the configuration has not
    Create {
        /// Its name
        name: String,
        /// How many PASIDs may be out below it
        #[arg(long, value_name = "NUMBER")]
        max: Option<u32>,
        /// The group that it is below
        #[arg(long, value_name = "NAME")]
        parent: Option<String>,
    },
    /// Set how many PASIDs may be out below a group
    Limit {
        /// The group
        name: String,
        /// How many, "unlimited", or "configured" for what the configuration says
        #[arg(value_parser = new_limit, allow_negative_numbers = true)]
        max: NewLimit,
    },
    /// Remove a group that was made at run time and has nothing below it
    Remove {
        /// The group
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Mdev {
    /// All functions: whose they are, what they are made of, who uses them
    List,
    /// Make a function that the configuration has not
    Create {
        /// The parent in the configuration
        #[arg(long, value_name = "NAME")]
        parent: String,
        /// dedicated-queue, shared-queue or exclusive
        #[arg(long = "type", value_name = "TYPE")]
        kind: FunctionKind,
        /// The tenant in the configuration
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// Its name; a random one unless given
        #[arg(long)]
        uuid: Option<String>,
        /// Its vfio-user socket; beside the one of the tenant's unit and named after the UUID unless given
        #[arg(long, value_name = "PATH")]
        function_socket: Option<PathBuf>,
        /// Where the guest finds it on its root bus, as in 00:12.0; the first free place unless given
        #[arg(long, value_name = "BDF")]
        guest_bdf: Option<String>,
    },
    /// Remove a function that was made at run time and that nobody uses
    Remove {
        /// Its name
        uuid: String,
    },
}

/// A path as the host can use it, wherever that runs.
fn for_the_host(path: &Path) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{}: the path of a socket has to be UTF-8", path.display()))
}

fn new_quota(text: &str) -> Result<NewQuota, String> {
    match text {
        "configured" => Ok(NewQuota::Configured),
        number => {
            Ok(NewQuota::Number(number.parse().map_err(|_| {
                "a number or \"configured\" is allowed".to_owned()
            })?))
        }
    }
}

fn new_limit(text: &str) -> Result<NewLimit, String> {
    match text {
        "configured" => Ok(NewLimit::Configured),
        "unlimited" => Ok(NewLimit::Unlimited),
        number => Ok(NewLimit::Max(number.parse().map_err(|_| {
            "a number, \"unlimited\" or \"configured\" is allowed".to_owned()
        })?)),
    }
}

fn range(text: &str) -> Result<(u32, u32), String> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let number = |n: &str| n.parse::<u32>().ok();
    let range = number(min).zip(number(max));
    range.ok_or_else(|| "one number, or two as in 5-9, are allowed".to_owned())
}

/// How often a host is asked for what is new.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match answer(arguments) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) if arguments.json && !nobody_listens(&e) => {
            let refusal = Refusal::from(&e);
            writeln!(stderr(), "{}", serde_json::to_string_pretty(&refusal)?)?;
            Ok(ExitCode::FAILURE)
        }
        Err(e) => Err(e),
    }
}

fn answer(arguments: &Arguments) -> anyhow::Result<()> {
    let (socket, json) = (arguments.socket.as_path(), arguments.json);
    let change = match &arguments.question {
        Question::Ledger => return print(&control::ask_ledger(socket)?, json),
        Question::Groups => return print(&control::ask_groups(socket)?, json),
        Question::Reserved => return print(&control::ask_reserved(socket)?, json),
        Question::Events {
            since,
            follow: false,
        } if json => {
            let page = control::ask_events(socket, *since)?;
            say(serde_json::to_string_pretty(&page)?)?;
            return Ok(());
        }
        Question::Events { since, follow } => return events(socket, *since, *follow, json),
        Question::Quota { tenant, quota } => Change::Quota {
            tenant: tenant.clone(),
            quota: *quota,
        },
        Question::Group(Group::Create { name, max, parent }) => Change::CreateGroup {
            name: name.clone(),
            max: max.map_or(NewLimit::Unlimited, NewLimit::Max),
            parent: parent.clone(),
        },
        Question::Group(Group::Limit { name, max }) => Change::LimitGroup {
            name: name.clone(),
            max: *max,
        },
        Question::Group(Group::Remove { name }) => Change::RemoveGroup { name: name.clone() },
        Question::Mdev(Mdev::List) => return print(&control::ask_mdevs(socket)?, json),
        Question::Mdev(Mdev::Create {
            parent,
            kind,
            tenant,
            uuid,
            function_socket,
            guest_bdf,
        }) => Change::CreateMdev {
            parent: parent.clone(),
            kind: *kind,
            tenant: tenant.clone(),
            uuid: uuid.clone(),
            socket: function_socket.as_deref().map(for_the_host).transpose()?,
            guest_bdf: guest_bdf.clone(),
        },
        Question::Mdev(Mdev::Remove { uuid }) => Change::RemoveMdev { uuid: uuid.clone() },
        &Question::Reserve { range: (min, max) } => Change::Reserve { min, max },
        &Question::Unreserve { range: (min, max) } => Change::Unreserve { min, max },
    };
    print(&control::request(socket, change)?, json)
}

/// An answer as a document, or as lines for people.
fn print(answer: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        say(serde_json::to_string_pretty(answer)?)?;
    } else {
        say(answer)?;
    }
    Ok(())
}

fn events(socket: &Path, first: u64, follow: bool, json: bool) -> anyhow::Result<()> {
    let mut since = first;
    loop {
        let page = control::ask_events(socket, since)?;
        if page.next < since {
            let next = page.next;
            let was_asked = since == first;
            if was_asked {
                remark(format_args!("the next event is only number {next}"))?;
            } else {
                remark("the host was started anew, and so were the numbers")?;
            }
            since = if was_asked { next } else { 0 };
            if follow {
                continue;
            }
        }
        if page.dropped > 0 {
            let dropped = page.dropped;
            remark(format_args!(
                "{dropped} of the events asked for are no longer kept"
            ))?;
        }
        let lines: Result<Vec<_>, _> = page
            .events
            .iter()
            .map(|event| match json {
                true => serde_json::to_string(event),
                false => Ok(event.to_string()),
            })
            .collect();
        let lines = lines?;
        if !lines.is_empty() {
            say(lines.join("\n"))?;
        }
        if !follow {
            return Ok(());
        }
        since = page.next;
        thread::sleep(FOLLOW_EVERY);
    }
}

/// Tells of what is no answer, beside the answer.
fn remark(what: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(stderr(), "palisade: {what}")?)
}
