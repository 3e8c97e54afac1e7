//! One connection to an SFTP server: address, host key, credential, and what the server can do.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use russh::client::{self, AuthResult};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh_sftp::client::{Config as SftpConfig, RawSftpSession, error::Error as SftpError};
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::Settings;
use super::super::tree::NO_PERMISSION;
use super::lenient::Lenient;
use crate::api::common::SecretKeyRef;
use crate::api::places::Sftp;
use crate::error::{Error, Kind, Result, clean};
use crate::outbound::guard::Guard;
use crate::outbound::secrets::References;
use crate::redacted::Redacted;

const CONNECT: Duration = Duration::from_secs(5);
/// Key exchange and authentication; a server may resolve names meanwhile.
const SIGN_IN: Duration = Duration::from_secs(20);
/// An answer to one request.
const REQUEST_SECONDS: u64 = 30;
/// After this much silence a connection is tried before it is used.
const DOUBTFUL: Duration = Duration::from_secs(15);
/// Files and folders open at a time. The protocol library takes handles for text, and those of OpenSSH are from 128 on none.
const OPEN_HANDLES: usize = 100;
/// Bytes in one request, where the server takes them; 32 KiB is what every server takes.
const LARGE_REQUEST: u64 = 128 * 1024;
const SMALL_REQUEST: u64 = 32 * 1024;

/// A server, and the connection to it that everybody shares.
pub struct Pool {
    spec: Sftp,
    /// Where the credential is kept: private key or password.
    reference: SecretKeyRef,
    host_keys: Arc<Vec<PublicKey>>,
    references: Arc<dyn References>,
    guard: Arc<Guard>,
    current: tokio::sync::Mutex<Option<Arc<Session>>>,
}

/// A connection that is signed in.
pub struct Session {
    /// Requests.
    pub raw: RawSftpSession,
    /// Bytes in one request to write or read.
    pub request_size: usize,
    /// `posix-rename@openssh.com` is there.
    pub replaces: bool,
    /// `fsync@openssh.com` is there.
    pub syncs: bool,
    /// Folders that are known to be there.
    pub folders: Mutex<HashSet<String>>,
    ssh: client::Handle<Pinned>,
    handles: Arc<Semaphore>,
    is_broken: AtomicBool,
    used_at: Mutex<Instant>,
}

/// Accepts the keys of the manifest and no other.
struct Pinned(Arc<Vec<PublicKey>>);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        Ok(self.0.iter().any(|known| known.key_data() == key.key_data()))
    }
}

impl Pool {
    /// Checks what can be checked without a connection.
    pub fn new(spec: &Sftp, references: Arc<dyn References>, settings: &Settings) -> Result<Self> {
        settings.guard.check_host(&spec.host).map_err(|why| Error::new(Kind::Rejected, format!("sftp.host: {why}")))?;
        let ((Some(reference), None) | (None, Some(reference))) = (&spec.private_key_ref, &spec.password_ref) else {
            return Err(Error::new(Kind::Rejected, "sftp needs exactly one of privateKeyRef and passwordRef"));
        };
        let parsed = |(n, text): (usize, &String)| {
            PublicKey::from_openssh(text.trim()).map_err(|_| {
                let hint = "a key looks like `ssh-ed25519 AAAA...`; ssh-keyscan prints it after the host's name";
                Error::new(Kind::Rejected, format!("sftp.hostKeys[{n}] is no host key; {hint}"))
            })
        };
        let host_keys: Vec<PublicKey> = spec.host_keys.iter().enumerate().map(parsed).collect::<Result<_>>()?;
        Ok(Self {
            spec: spec.clone(),
            reference: reference.clone(),
            host_keys: Arc::new(host_keys),
            references,
            guard: settings.guard.clone(),
            current: tokio::sync::Mutex::new(None),
        })
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.spec.host, self.port())
    }

    /// The user.
    pub fn username(&self) -> &str {
        &self.spec.username
    }

    fn port(&self) -> u16 {
        self.spec.port.unwrap_or(22)
    }

    /// The connection that is there, or a new one.
    pub async fn session(&self) -> Result<Arc<Session>> {
        let mut current = self.current.lock().await;
        if let Some(session) = current.take()
            && session.is_alive().await
        {
            *current = Some(session.clone());
            return Ok(session);
        }
        let session = Arc::new(self.connect().await?);
        *current = Some(session.clone());
        Ok(session)
    }

    async fn connect(&self) -> Result<Session> {
        let credential = self.credential().await?;
        match self.sign_in(&credential).await {
            Err(error) if error.kind == Kind::Denied => {
                self.references.refused();
                let renewed = self.credential().await?;
                if renewed == credential { Err(error) } else { self.sign_in(&renewed).await }
            }
            other => other,
        }
    }

    async fn credential(&self) -> Result<Redacted> {
        let host = self.spec.host.trim_start_matches('[').trim_end_matches(']');
        self.references.credential(&self.reference, host).await
    }

    async fn sign_in(&self, credential: &Redacted) -> Result<Session> {
        let addresses = self.guard.resolve(&self.spec.host, self.port()).await?;
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(&*addresses)).await;
        let stream = connecting
            .map_err(|_| self.unreachable("no answer in time"))?
            .map_err(|error| self.unreachable(&error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(&error.to_string()))?;
        let config = client::Config {
            keepalive_interval: Some(Duration::from_secs(30)),
            nodelay: true,
            window_size: 4 * 1024 * 1024,
            ..client::Config::default()
        };
        let signing_in = async {
            let connected = client::connect_stream(Arc::new(config), stream, Pinned(self.host_keys.clone())).await;
            let mut ssh = connected.map_err(|error| self.handshake_error(&error))?;
            self.authenticate(&mut ssh, credential).await?;
            let channel = ssh.channel_open_session().await.map_err(|error| self.unreachable(&error.to_string()))?;
            channel.request_subsystem(true, "sftp").await.map_err(|error| self.unreachable(&error.to_string()))?;
            let sftp_config =
                SftpConfig { request_timeout_secs: REQUEST_SECONDS, max_packet_len: 1024 * 1024, ..SftpConfig::default() };
            let raw = RawSftpSession::new_with_config(Lenient::new(channel.into_stream()), sftp_config);
            self.greet(ssh, raw).await
        };
        tokio::time::timeout(SIGN_IN, signing_in).await.map_err(|_| self.unreachable("no answer in time"))?
    }

    async fn authenticate(&self, ssh: &mut client::Handle<Pinned>, credential: &Redacted) -> Result<()> {
        let user = self.spec.username.clone();
        let answer = if self.spec.private_key_ref.is_some() {
            let key =
                PrivateKey::from_openssh(credential.expose()).ok().filter(|key| !key.is_encrypted()).ok_or_else(|| {
                    let SecretKeyRef { name, key } = &self.reference;
                    Error::new(
                        Kind::Reference,
                        format!("key {key} of Secret {name} is no private key in OpenSSH's format without a passphrase"),
                    )
                })?;
            let hash = ssh.best_supported_rsa_hash().await.ok().flatten().flatten();
            ssh.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::new(key), hash)).await
        } else {
            ssh.authenticate_password(user, credential.expose()).await
        };
        match answer {
            Ok(AuthResult::Success) => Ok(()),
            Ok(AuthResult::Failure { .. }) => {
                let SecretKeyRef { name, key } = &self.reference;
                let user = clean(&self.spec.username, 64);
                let what = format!("{} refused user {user}; check key {key} of Secret {name}", self.authority());
                Err(Error::new(Kind::Denied, what))
            }
            Err(error) => Err(self.unreachable(&error.to_string())),
        }
    }

    async fn greet(&self, ssh: client::Handle<Pinned>, mut raw: RawSftpSession) -> Result<Session> {
        let version = raw.init().await.map_err(|error| self.unreachable(&format!("it offers no SFTP: {error}")))?;
        let has = |name: &str| version.extensions.contains_key(name);
        let mut request_size = SMALL_REQUEST;
        if has("limits@openssh.com")
            && let Ok(limits) = raw.limits().await
        {
            let least = limits.max_write_len.min(limits.max_read_len);
            request_size = least.clamp(4096, LARGE_REQUEST);
            raw.set_limits(limits.into());
        }
        Ok(Session {
            raw,
            request_size: usize::try_from(request_size).unwrap_or(32 * 1024),
            replaces: has("posix-rename@openssh.com"),
            syncs: has("fsync@openssh.com"),
            folders: Mutex::default(),
            ssh,
            handles: Arc::new(Semaphore::new(OPEN_HANDLES)),
            is_broken: AtomicBool::new(false),
            used_at: Mutex::new(Instant::now()),
        })
    }

    fn handshake_error(&self, error: &russh::Error) -> Error {
        if matches!(error, russh::Error::UnknownKey) {
            return Error::new(
                Kind::Tls,
                format!(
                    "{} has a host key that is not in sftp.hostKeys; if it was changed on purpose, add the new one",
                    self.authority()
                ),
            );
        }
        self.unreachable(&error.to_string())
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::new(Kind::Unavailable, format!("{} cannot be reached: {}", self.authority(), clean(why, 200)))
    }
}

impl Session {
    /// Whether it can be used. After some silence this is found out by asking.
    async fn is_alive(&self) -> bool {
        if self.is_broken.load(Ordering::Relaxed) || self.ssh.is_closed() {
            return false;
        }
        if self.used_at.lock().elapsed() < DOUBTFUL {
            return true;
        }
        let asked = tokio::time::timeout(CONNECT, self.raw.realpath(".")).await;
        *self.used_at.lock() = Instant::now();
        matches!(asked, Ok(Ok(_)))
    }

    /// The result of a request. What is no answer of the server breaks the connection: the next one makes another.
    pub fn heard<T>(&self, result: Result<T, SftpError>) -> Result<T> {
        *self.used_at.lock() = Instant::now();
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let SftpError::Status(status) = &error else {
            self.is_broken.store(true, Ordering::Relaxed);
            return Err(Error::new(
                Kind::Unavailable,
                format!("the SFTP server broke off: {}", clean(&error.to_string(), 200)),
            ));
        };
        let said = clean(&status.error_message, 200);
        Err(match status.status_code {
            StatusCode::NoSuchFile => Error::new(Kind::NotFound, "the file is not there"),
            StatusCode::PermissionDenied => {
                let mut error =
                    Error::new(Kind::Denied, format!("the SFTP server refused it: {said}; check the user's rights"));
                error.code = NO_PERMISSION.into();
                error
            }
            StatusCode::OpUnsupported => Error::new(Kind::Unsupported, format!("the SFTP server cannot do it: {said}")),
            StatusCode::Eof => Error::new(Kind::Unavailable, "the SFTP server had less to give than it said"),
            _ => Error::new(Kind::Unavailable, format!("the SFTP server failed: {said}")),
        })
    }

    /// Opens a file.
    pub async fn open(self: &Arc<Self>, path: &str, flags: OpenFlags) -> Result<Handle> {
        let permit = self.permit().await?;
        let opened = self.heard(self.raw.open(path, flags, FileAttributes::empty()).await)?;
        Ok(Handle { session: self.clone(), id: opened.handle, permit: Some(permit) })
    }

    /// Opens a folder.
    pub async fn open_folder(self: &Arc<Self>, path: &str) -> Result<Handle> {
        let permit = self.permit().await?;
        let opened = self.heard(self.raw.opendir(path).await)?;
        Ok(Handle { session: self.clone(), id: opened.handle, permit: Some(permit) })
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = self.handles.clone().acquire_owned().await;
        permit.map_err(|_| Error::new(Kind::Stopping, "the operator is stopping"))
    }
}

/// Something open at the server; closed when it goes out of use, also when the task that uses it is given up.
pub struct Handle {
    session: Arc<Session>,
    id: String,
    /// `None` once it is closed.
    permit: Option<OwnedSemaphorePermit>,
}

impl Handle {
    /// The connection.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What the server calls it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Closes it and waits for the answer: a server may tell only now that something failed.
    pub async fn close(mut self) -> Result<()> {
        let _permit = self.permit.take();
        self.session.heard(self.session.raw.close(self.id.as_str()).await).map(drop)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let (Some(permit), Ok(runtime)) = (self.permit.take(), tokio::runtime::Handle::try_current()) {
            let (session, id) = (self.session.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move {
                let _ = session.raw.close(id).await;
                drop(permit);
            });
        }
    }
}
