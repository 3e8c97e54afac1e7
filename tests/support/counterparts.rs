//! Real programs at the other end: an S3 server, a WebDAV server, an SFTP server, a NATS server. Each has its own free port and folder, can be taken away and
//! brought back as it was, and ends with the process that started it, however that ends.

#![allow(dead_code, reason = "each test binary uses a part of it")]

#[path = "ports.rs"]
mod ports;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use sha2::Digest as _;
use tempfile::TempDir;

pub use ports::free_port;
#[allow(unused_imports, reason = "not every test binary has a server that goes away")]
pub use ports::listen_again;

/// How long a program may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program that answers at a port.
struct Program {
    command: Vec<String>,
    port: u16,
    child: Mutex<Option<Child>>,
    log: PathBuf,
}

impl Program {
    /// Starts it at a free port. Another program may take the port first; then the next one is tried.
    fn start(log: &Path, command: impl Fn(u16) -> Vec<String>) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let program = Self { command: command(port), port, child: Mutex::new(None), log: log.to_owned() };
            match program.begin() {
                Ok(()) => return program,
                Err(why) => eprintln!("{why}"),
            }
        }
        panic!("{} does not start", command(0)[0]);
    }

    fn begin(&self) -> Result<(), String> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut child = Command::new(bin_dir().join("keep"))
            .args(&self.command)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the supervisor starts");
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if child.try_wait().unwrap().is_some() || started.elapsed() > PATIENCE {
                let _ = child.kill();
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("{} does not answer at port {}: {said}", self.command[0], self.port));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        *self.child.lock().unwrap() = Some(child);
        Ok(())
    }

    /// Ends it with every connection, and waits until it is gone.
    fn stop(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
            assert!(started.elapsed() < PATIENCE, "{} does not go away", self.command[0]);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn start_again(&self) {
        self.begin().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(Some(mut child)) = self.child.get_mut().map(Option::take) {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// versitygw: S3 over a folder. A bucket is a folder in [`S3Server::data`], an object a file with the key as its path.
pub struct S3Server {
    program: Program,
    folder: TempDir,
    /// `http://` or `https://`, host and port.
    pub endpoint: String,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The certificate in PEM, with TLS.
    pub certificate: Option<String>,
}

impl S3Server {
    /// Access key id of the owner.
    pub const KEY_ID: &str = "AKIDEXAMPLE";
    /// Secret access key of the owner.
    pub const SECRET: &str = "correct-horse-battery-staple";
    /// A bucket that is there.
    pub const BUCKET: &str = "archive";
    /// Its region.
    pub const REGION: &str = "eu-central-1";

    /// A server with a bucket.
    pub fn start() -> Self {
        Self::begin(None)
    }

    /// The same with TLS: the certificate is for `localhost`.
    pub fn start_with_tls() -> Self {
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self::begin(Some((signed.cert.pem(), signed.signing_key.serialize_pem())))
    }

    fn begin(tls: Option<(String, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data").join(Self::BUCKET)).unwrap();
        let mut flags = Vec::new();
        if let Some((certificate, key)) = &tls {
            for (name, content) in [("cert", certificate), ("key", key)] {
                let path = folder.path().join(name);
                std::fs::write(&path, content).unwrap();
                flags.extend([format!("--{name}"), text(&path)]);
            }
        }
        let program = Program::start(&folder.path().join("log"), |port| {
            let mut command = vec![text(&bin_dir().join("versitygw"))];
            command.extend(
                [
                    "--access",
                    Self::KEY_ID,
                    "--secret",
                    Self::SECRET,
                    "--region",
                    Self::REGION,
                    "--quiet",
                    "--keep-alive",
                    "--port",
                ]
                .map(str::to_owned),
            );
            command.push(format!("127.0.0.1:{port}"));
            command.extend(flags.clone());
            command.extend(["posix".to_owned(), text(&folder.path().join("data"))]);
            command
        });
        let port = program.port;
        let endpoint = if tls.is_some() { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        Self { program, folder, endpoint, port, certificate: tls.map(|(certificate, _)| certificate) }
    }

    /// The bucket, as a folder.
    pub fn bucket(&self) -> PathBuf {
        self.data().join(Self::BUCKET)
    }

    /// Puts an object with another client, with these headers.
    pub fn put_by_hand(&self, key: &str, content: &str, headers: &[&str]) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--request", "PUT", "--data-binary", "@-", "--aws-sigv4"]);
        command.arg(format!("aws:amz:{}:s3", Self::REGION)).args(["--user", &format!("{}:{}", Self::KEY_ID, Self::SECRET)]);
        for header in headers {
            command.args(["--header", header]);
        }
        let hash: String = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        command.args(["--header", &format!("x-amz-content-sha256: {hash}")]);
        command.arg(format!("{}/{}/{key}", self.endpoint, Self::BUCKET)).stdin(Stdio::piped());
        let mut child = command.spawn().expect("curl is there: run tests/tools.sh");
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), content.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "curl could not put {key}");
    }

    /// All buckets.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Takes it away, with every connection.
    pub fn stop(&self) {
        self.program.stop();
    }

    /// Brings it back as it was.
    pub fn start_again(&self) {
        self.program.start_again();
    }
}

/// rclone's `serve webdav` over a folder: a collection is a folder, a resource a file. It has locks, and passes over If-Match and
/// If-None-Match.
pub struct WebDavServer {
    program: Program,
    folder: TempDir,
    /// `http://` or `https://`, host and port.
    pub endpoint: String,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The certificate in PEM, with TLS.
    pub certificate: Option<String>,
}

impl WebDavServer {
    /// The user.
    pub const USER: &str = "operator";
    /// The user's password.
    pub const PASSWORD: &str = "correct-horse:battery-staple";

    /// A server with nothing in it.
    pub fn start() -> Self {
        Self::begin(false)
    }

    /// The same with TLS: the certificate is for `localhost`.
    pub fn start_with_tls() -> Self {
        Self::begin(true)
    }

    fn begin(with_tls: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        let mut flags = Vec::new();
        let mut certificate = None;
        if with_tls {
            let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            for (name, content) in [("cert", signed.cert.pem()), ("key", signed.signing_key.serialize_pem())] {
                let path = folder.path().join(name);
                std::fs::write(&path, content).unwrap();
                flags.extend([format!("--{name}"), text(&path)]);
            }
            certificate = Some(signed.cert.pem());
        }
        let program = Program::start(&folder.path().join("log"), |port| {
            let mut command = vec![text(&bin_dir().join("rclone-webdav"))];
            command.extend(["serve", "webdav"].map(str::to_owned));
            command.push(text(&folder.path().join("root")));
            command.extend(["--addr".to_owned(), format!("127.0.0.1:{port}")]);
            command.extend(["--user", Self::USER, "--pass", Self::PASSWORD].map(str::to_owned));
            // What tests do to the folder itself is seen soon (with no time at all, rclone's timers never rest); no settings of whoever
            // runs the tests.
            command.extend(["--dir-cache-time", "5ms", "--config", "/dev/null"].map(str::to_owned));
            command.extend(flags.clone());
            command
        });
        let port = program.port;
        let endpoint = if with_tls { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        Self { program, folder, endpoint, port, certificate }
    }

    /// The root, as a folder.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Takes it away, with every connection.
    pub fn stop(&self) {
        self.program.stop();
    }

    /// Brings it back as it was.
    pub fn start_again(&self) {
        self.program.start_again();
    }
}

/// OpenSSH's server, for the user that runs the tests, with the files below [`SftpServer::root`].
pub struct SftpServer {
    program: Program,
    folder: TempDir,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The user.
    pub username: String,
    /// Its private key, in OpenSSH's format.
    pub private_key: String,
    /// The server's host key, as in `known_hosts` without the host.
    pub host_key: String,
}

impl SftpServer {
    /// A server that lets its user sign in with a key.
    pub fn start() -> Self {
        Self::start_without(&[])
    }

    /// The same, refusing these requests (`sftp-server -Q requests` lists them).
    pub fn start_without(requests: &[&str]) -> Self {
        let refused = if requests.is_empty() { String::new() } else { format!(" -P {}", requests.join(",")) };
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("root")).unwrap();
        let (host_private, host_key) = key_pair();
        let (private_key, public_key) = key_pair();
        std::fs::write(at("authorized_keys"), format!("{public_key}\n")).unwrap();
        write_private(&at("host_key"), &host_private);
        let sshd = sshd();
        let program = Program::start(&at("log"), |port| {
            let config = format!(
                "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\nLogLevel ERROR\n\
                 Subsystem sftp internal-sftp{refused}\n",
                text(&at("host_key")),
                text(&at("authorized_keys")),
            );
            std::fs::write(at("sshd_config"), config).unwrap();
            vec![text(&sshd), "-D".into(), "-e".into(), "-f".into(), text(&at("sshd_config"))]
        });
        let username = said("id", &["-un"]);
        let port = program.port;
        Self { program, folder, port, username, private_key, host_key }
    }

    /// Where the tests' files go.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// What is around the root.
    pub fn around(&self) -> &Path {
        self.folder.path()
    }

    /// Takes it away, with every connection.
    pub fn stop(&self) {
        self.program.stop();
    }

    /// Brings it back as it was.
    pub fn start_again(&self) {
        self.program.start_again();
    }
}

/// ProFTPD's mod_sftp, for a user of its own with a password: another implementation than OpenSSH's.
pub struct ProFtpd {
    program: Program,
    folder: TempDir,
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The server's host key, as in `known_hosts` without the host.
    pub host_key: String,
}

impl ProFtpd {
    /// The user.
    pub const USERNAME: &str = "acme";
    /// Its password.
    pub const PASSWORD: &str = "correct-horse-battery-staple";

    /// A server with one user.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| text(&folder.path().join(name));
        std::fs::create_dir(at("root")).unwrap();
        let (host_private, host_key) = key_pair();
        write_private(&folder.path().join("host_key"), &host_private);
        let hash = said("openssl", &["passwd", "-6", Self::PASSWORD]);
        let (uid, gid) = (said("id", &["-u"]), said("id", &["-g"]));
        let user = format!("{}:{hash}:{uid}:{gid}::{}:/bin/sh\n", Self::USERNAME, at("root"));
        write_private(&folder.path().join("passwd"), &user);
        let proftpd = system_program("proftpd");
        let program = Program::start(&folder.path().join("log"), |port| {
            let config = format!(
                "ServerType standalone\nDefaultAddress 127.0.0.1\nSocketBindTight on\nUseIPv6 off\nPort {port}\nUser {}\nGroup {}\n\
                 PidFile {}\nScoreboardFile none\nDelayEngine off\nWtmpLog off\nTransferLog none\nSystemLog {}\n\
                 LoadModule mod_sftp.c\nAuthOrder mod_auth_file.c\nAuthUserFile {}\nRequireValidShell off\nRootLogin on\n\
                 AllowOverwrite on\nSFTPEngine on\nSFTPHostKey {}\nSFTPAuthMethods password\n",
                said("id", &["-un"]),
                said("id", &["-gn"]),
                at("pid"),
                at("syslog"),
                at("passwd"),
                at("host_key"),
            );
            std::fs::write(at("config"), config).unwrap();
            vec![text(&proftpd), "-n".into(), "-q".into(), "-c".into(), at("config")]
        });
        let port = program.port;
        Self { program, folder, port, host_key }
    }

    /// The user's folder.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// What is around it.
    pub fn around(&self) -> &Path {
        self.folder.path()
    }

    /// Takes it away, with every connection.
    pub fn stop(&self) {
        self.program.stop();
    }

    /// Brings it back as it was.
    pub fn start_again(&self) {
        self.program.start_again();
    }
}

/// A new key pair: the private key in OpenSSH's format, and the public one as in `authorized_keys`.
pub fn key_pair() -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&path).status();
    assert!(made.expect("ssh-keygen is there: run tests/tools.sh").success());
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let words: Vec<&str> = public.split_whitespace().take(2).collect();
    (std::fs::read_to_string(&path).unwrap(), words.join(" "))
}

/// NATS with JetStream.
pub struct NatsServer {
    program: Program,
    folder: TempDir,
    /// Port on 127.0.0.1.
    pub port: u16,
}

impl NatsServer {
    /// A server that everybody may use.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more lines of configuration, such as `authorization { token: x }`.
    pub fn start_with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nats.conf");
        let program = Program::start(&folder.path().join("log"), |port| {
            let store = text(&folder.path().join("store"));
            let whole = format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{store}\" }}\n{config}\n");
            std::fs::write(&path, whole).unwrap();
            vec![text(&bin_dir().join("nats-server")), "--config".into(), text(&path)]
        });
        let port = program.port;
        Self { program, folder, port }
    }

    /// The configuration, which [`NatsServer::start_again`] reads.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("nats.conf")
    }

    /// Takes it away, with every connection.
    pub fn stop(&self) {
        self.program.stop();
    }

    /// Brings it back, with what it had stored.
    pub fn start_again(&self) {
        self.program.start_again();
    }
}

/// All files below `folder` by their path in it. Links are not followed.
pub fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let name = path.strip_prefix(folder).unwrap().to_str().expect("names are UTF-8").to_owned();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The folder with the programs, built if needed.
pub fn bin_dir() -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counterparts/build.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("build.sh runs");
        assert!(output.status.success(), "{script} failed");
        let text = String::from_utf8(output.stdout).expect("a path");
        text.lines().last().expect("a line").trim().into()
    })
    .clone()
}

/// sshd insists on being started by its whole path; as root, on a folder for its unprivileged part.
fn sshd() -> PathBuf {
    let _ = std::fs::create_dir_all("/run/sshd");
    system_program("sshd")
}

/// A program of the system's packages, which may be where only the administrator's `PATH` leads.
fn system_program(name: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    found.unwrap_or_else(|| panic!("{name} is missing: run tests/tools.sh"))
}

/// The first line that a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn write_private(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_owned()
}
