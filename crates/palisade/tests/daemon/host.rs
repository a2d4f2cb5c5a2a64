//! A daemon for tests: started from a configuration, ended by process id.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use palisade_driver::{Copy, DriverError, FunctionAddress, MissingPage, Tenant};
use palisade_dsa::spec::Status;
use palisade_host::control::{self, Ledger};
use palisade_units::{Bdf, GuestPasid, Iova};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Nothing here takes that long; it only keeps a failure from hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two tenants with two slices each of one parent; bob has a second parent to himself.
pub(crate) const CONFIG: &str = r#"
control = "control.sock"
[[parent]]
name = "dsa0"
bdf = "6a:01.0"
[[parent]]
name = "dsa1"
bdf = "6f:01.0"
sharing = "exclusive"
[[tenant]]
name = "alice"
quota = 10
unit = { socket = "alice-unit.sock" }
[[tenant.function]]
parent = "dsa0"
type = "dedicated-queue"
socket = "alice-0.sock"
[[tenant.function]]
parent = "dsa0"
type = "dedicated-queue"
socket = "alice-1.sock"
[[tenant]]
name = "bob"
quota = 10
unit = { socket = "bob-unit.sock" }
[[tenant.function]]
parent = "dsa0"
type = "dedicated-queue"
socket = "bob-0.sock"
[[tenant.function]]
parent = "dsa1"
type = "exclusive"
socket = "bob-1.sock"
"#;

/// The place of a tenant's first function.
pub(crate) const FIRST: Bdf = Bdf::new(0, 0x11, 0);

/// A copy of one page of a process, which asks for no page that is missing.
pub(crate) fn copy_of_a_page(process: GuestPasid) -> Copy {
    Copy {
        process,
        from: Iova::new(0x5000_0000_0000),
        to: Iova::new(0x5000_0010_0000),
        len_bytes: 4096,
        missing: MissingPage::End,
    }
}

pub(crate) fn palisade() -> Command {
    Command::new(env!("CARGO_BIN_EXE_palisade"))
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the end of a process.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

fn serve(folder: &Path, config: &str) -> Command {
    let file = folder.join("host.toml");
    fs::write(&file, config).unwrap();
    // Under an umask that closes nothing: what is private is so by the daemon's own doing. And under a limit of
    // descriptors that a tenant reaches: it is for the daemon to have it raised.
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; ulimit -Sn 96; exec \"$@\"", "sh"]);
    command.arg(palisade().get_program());
    command.arg("serve").arg("--config").arg(&file);
    command
}

pub(crate) struct Daemon {
    /// There until the daemon is killed.
    folder: Option<TempDir>,
    process: Child,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), CONFIG)
    }

    /// A daemon in a folder that another one may have used.
    pub(crate) fn start_in(folder: TempDir, config: &str) -> Self {
        let process = serve(folder.path(), config).spawn().unwrap();
        let daemon = Self {
            folder: Some(folder),
            process,
        };
        // The control socket is opened last; a killed daemon leaves one behind that nobody serves.
        wait_until("the daemon serves", || {
            control::ask_reserved(&daemon.socket("control")).is_ok()
        });
        daemon
    }

    /// A tenant's own driver at its unit and at its first function.
    pub(crate) fn connect(&self, tenant: &str, memory_bytes: u64) -> Result<Tenant, DriverError> {
        let first = FunctionAddress {
            bdf: FIRST,
            socket: self.socket(&format!("{tenant}-0")),
        };
        self.connect_to(tenant, &[first], memory_bytes)
    }

    /// A tenant's own driver at its unit and at these functions.
    pub(crate) fn connect_to(
        &self,
        tenant: &str,
        functions: &[FunctionAddress],
        memory_bytes: u64,
    ) -> Result<Tenant, DriverError> {
        let unit = self.socket(&format!("{tenant}-unit"));
        Tenant::connect(&unit, functions, memory_bytes)
    }

    /// Makes a function with `palisade ctl mdev create`.
    #[track_caller]
    pub(crate) fn make(&self, tenant: &str, parent: &str, kind: &str, more: &[&str]) -> Made {
        let mut arguments = vec!["mdev", "create", "--tenant", tenant];
        arguments.extend(["--parent", parent, "--type", kind]);
        arguments.extend(more);
        let answer = self.json(&arguments);
        let made = &answer["change"]["create-mdev"];
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Made {
            uuid: text("uuid"),
            address: FunctionAddress {
                bdf: text("guest_bdf").parse().unwrap(),
                socket: text("socket").into(),
            },
        }
    }

    /// The functions of `palisade ctl mdev list`.
    #[track_caller]
    pub(crate) fn mdevs(&self) -> Vec<Value> {
        let list = self.json(&["mdev", "list"]);
        list["mdevs"].as_array().unwrap().clone()
    }

    /// One function of `palisade ctl mdev list`.
    #[track_caller]
    pub(crate) fn mdev(&self, uuid: &str) -> Value {
        let all = self.mdevs();
        let found = all.into_iter().find(|mdev| mdev["uuid"] == uuid);
        found.unwrap_or(Value::Null)
    }

    /// What a daemon says that does not start.
    pub(crate) fn refused_in(folder: &Path, config: &str) -> String {
        let said = serve(folder, config).output().unwrap();
        assert!(!said.status.success());
        String::from_utf8(said.stderr).unwrap()
    }

    /// SIGKILL. What it leaves in its folder is there for the next one.
    pub(crate) fn kill(mut self) -> TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.folder.take().unwrap()
    }

    /// `palisade ctl` at this daemon.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Output {
        let mut command = palisade();
        command.arg("ctl").args(arguments);
        command.arg("--socket").arg(self.socket("control"));
        command.output().unwrap()
    }

    /// What `palisade ctl` says where it succeeds.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let said = self.ctl(arguments);
        let complaint = String::from_utf8(said.stderr).unwrap();
        assert!(said.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(said.stdout).unwrap()
    }

    /// What `palisade ctl` complains of where it fails.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let said = self.ctl(arguments);
        assert!(!said.status.success(), "{arguments:?}");
        assert!(said.stdout.is_empty(), "{arguments:?}");
        String::from_utf8(said.stderr).unwrap()
    }

    /// One document of `palisade ctl`.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// A tenant's quota, as the ledger has it.
    pub(crate) fn quota(&self, tenant: &str) -> u32 {
        let ledger = self.ledger();
        let found = ledger.tenants.iter().find(|t| t.name == tenant);
        found.unwrap().quota
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.sock"))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        control::ask_ledger(&self.socket("control")).unwrap()
    }

    /// Waits until a tenant has gone and everything it had was given back.
    pub(crate) fn wait_for_end_of(&self, tenant: &str) {
        wait_until("the tenant is cleared away", || {
            let ledger = self.ledger();
            let tenant = ledger.tenants.iter().find(|t| t.name == tenant).unwrap();
            tenant.pid.is_none() && tenant.pasids.is_empty()
        });
    }

    /// Asks the daemon to end, and waits for it.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).unwrap();
        ended(&mut self.process)
    }
}

/// A function that was made at run time.
pub(crate) struct Made {
    pub(crate) uuid: String,
    pub(crate) address: FunctionAddress,
}

/// Has a function copy a page of a new process, and says whether the bytes arrived.
pub(crate) fn copies_a_page(tenant: &mut Tenant, on: Bdf) -> bool {
    let copy = copy_of_a_page(tenant.start_process().unwrap());
    tenant.plant(copy.process, copy.from, &[7; 4096]).unwrap();
    tenant.plant(copy.process, copy.to, &[0; 4096]).unwrap();
    let completion = tenant.copy(on, copy).unwrap();
    let mut arrived = [0; 4096];
    tenant.peek(copy.process, copy.to, &mut arrived).unwrap();
    completion.status == Status::SUCCESS && arrived == [7; 4096]
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A tenant in a process of its own, copying on the first function.
pub(crate) struct TenantProcess {
    process: Child,
    input: ChildStdin,
    events: mpsc::Receiver<Value>,
}

impl TenantProcess {
    pub(crate) fn start(daemon: &Daemon, tenant: &str, copy_bytes: u64) -> Self {
        let first = FunctionAddress {
            bdf: FIRST,
            socket: daemon.socket(&format!("{tenant}-0")),
        };
        Self::start_on(daemon, tenant, &first, copy_bytes)
    }

    /// One that copies on this function.
    pub(crate) fn start_on(
        daemon: &Daemon,
        tenant: &str,
        function: &FunctionAddress,
        copy_bytes: u64,
    ) -> Self {
        let mut process = palisade()
            .arg("demo-tenant")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = process.stdin.take().unwrap();
        let order = json!({
            "name": tenant,
            "unit_socket": daemon.socket(&format!("{tenant}-unit")),
            "mediated": { "bdf": function.bdf.to_string(), "socket": function.socket },
            "exclusive": null,
            "copy_bytes": copy_bytes,
            "seed": 1,
        });
        writeln!(input, "{order}").unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            input,
            events,
        }
    }

    /// The next event of a kind; another kind than progress on the way there is a failure.
    pub(crate) fn wait_for(&self, kind: &str) -> Value {
        loop {
            let event = self.events.recv_timeout(PATIENCE).unwrap();
            if event["event"] == kind {
                return event;
            }
            assert_eq!(event["event"], "progress", "{event}");
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn finish(mut self) {
        writeln!(self.input, "{}", json!({ "do": "finish" })).unwrap();
        assert!(ended(&mut self.process).success());
    }
}
