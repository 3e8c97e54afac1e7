//! One control plane for all tests of a binary. It ends with the process: its supervisor watches standard input.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

/// A running control plane.
pub struct ControlPlane {
    /// Administrator's access.
    pub kubeconfig: PathBuf,
    supervisor: Option<Mutex<Supervisor>>,
}

struct Supervisor {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

static SHARED: OnceLock<ControlPlane> = OnceLock::new();

impl ControlPlane {
    /// The control plane that all tests of this binary share. `KUBECONFIG` names another cluster to use instead.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| match std::env::var_os("KUBECONFIG") {
            Some(kubeconfig) => {
                eprintln!("Using the cluster of KUBECONFIG={}", kubeconfig.to_string_lossy());
                Self { kubeconfig: kubeconfig.into(), supervisor: None }
            }
            None => Self::start(&[]),
        })
    }

    /// A control plane of its own, for tests that stop it or need cluster-wide rights.
    pub fn start(flags: &[&str]) -> Self {
        let bin = bin_dir();
        let mut child = Command::new(bin.join("controlplane"))
            .args(["up", "--fast", "--bin"])
            .arg(&bin)
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the supervisor starts");
        let commands = child.stdin.take().expect("stdin is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let ready = read(&mut answers);
        assert_eq!(ready["ready"], true, "the control plane did not start: {ready}");
        let kubeconfig = ready["kubeconfig"].as_str().expect("a path").into();
        Self { kubeconfig, supervisor: Some(Mutex::new(Supervisor { child, commands, answers })) }
    }

    /// Sends a command of the supervisor's protocol, such as `restart kube-apiserver`.
    pub fn command(&self, command: &str) {
        let supervisor = self.supervisor.as_ref().expect("a control plane of our own");
        let mut supervisor = supervisor.lock().expect("not poisoned");
        writeln!(supervisor.commands, "{command}").expect("the supervisor listens");
        let answer = read(&mut supervisor.answers);
        assert_eq!(answer["ok"], true, "{command}: {answer}");
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            let Supervisor { mut child, commands, .. } = supervisor.into_inner().expect("not poisoned");
            drop(commands);
            let _ = child.wait();
        }
    }
}

/// The folder with the programs, built if needed.
pub fn bin_dir() -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/controlplane/build.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("build.sh runs");
        assert!(output.status.success(), "{script} failed");
        let text = String::from_utf8(output.stdout).expect("a path");
        text.lines().last().expect("a line").trim().into()
    })
    .clone()
}

fn read(answers: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).expect("the supervisor answers");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("the supervisor said {line:?}: {error}"))
}
