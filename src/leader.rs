//! One leader at a time, by a Lease.
//!
//! A Lease is not a fence: a paused process can wake up and think that it still leads. So the loser cancels every write in
//! flight at its own renew deadline, which ends before anyone else may take over, and File 360 refuses older epochs by itself.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::error::{Error, Kind, Result};

/// Which Lease, and how long it lasts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who asks; unique to the process.
    pub identity: String,
    /// Without renewal for this long, others may take over.
    pub duration: Duration,
    /// Without renewal for this long, the leader gives up. Shorter than `duration`.
    pub renew_deadline: Duration,
}

/// Takes, keeps and gives up the leadership.
pub struct Leader {
    api: Api<Lease>,
    settings: Settings,
}

impl Leader {
    /// Nothing is asked before [`Leader::acquire`].
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { api: Api::namespaced(client, &settings.namespace), settings }
    }

    fn pause(&self) -> Duration {
        self.settings.renew_deadline / 5
    }

    /// Waits until this process leads. `contacted` is called each time that the Lease could be read: this process could take over.
    pub async fn acquire(&self, contacted: impl Fn()) {
        // What was seen last, and since when: another's clock is never trusted.
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(true) => {
                    info!(lease = %self.settings.name, identity = %self.settings.identity, "Leading");
                    return;
                }
                Ok(false) => contacted(),
                Err(error) => warn!(%error, "The Lease could not be read or written"),
            }
            tokio::time::sleep(self.pause()).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<(Option<String>, Instant)>) -> Result<bool> {
        let Some(lease) = self.api.get_opt(&self.settings.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(0, None)),
            };
            return match self.api.create(&PostParams::default(), &lease).await.map_err(Error::from) {
                Ok(_) => Ok(true),
                Err(error) if error.code == "AlreadyExists" => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let version = lease.metadata.resource_version.clone();
        let unchanged_since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => seen.insert((version, Instant::now())).1,
        };
        let patience = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(self.settings.duration, Duration::from_secs);
        let free =
            holder.is_none() || holder.as_deref() == Some(&self.settings.identity) || unchanged_since.elapsed() >= patience;
        if !free {
            return Ok(false);
        }
        let mut next = lease;
        next.spec = Some(self.spec(spec.lease_transitions.unwrap_or_default() + 1, None));
        match self.api.replace(&self.settings.name, &PostParams::default(), &next).await.map_err(Error::from) {
            Ok(_) => Ok(true),
            Err(error) if error.code == "Conflict" => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration.as_secs().max(1)).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Keeps the leadership; returns when it is lost, at the renew deadline at the latest.
    pub async fn keep(&self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.pause()).await;
            let left = self.settings.renew_deadline.saturating_sub(renewed.elapsed());
            if left.is_zero() {
                warn!("The Lease could not be renewed in time");
                return;
            }
            let started = Instant::now();
            match tokio::time::timeout(left, self.renew()).await {
                Ok(Ok(())) => renewed = started,
                Ok(Err(error)) if error.kind == Kind::Stale => {
                    warn!(%error, "The leadership went to another process");
                    return;
                }
                Ok(Err(error)) => warn!(%error, "The Lease could not be renewed"),
                Err(_) => {}
            }
        }
    }

    async fn renew(&self) -> Result<()> {
        let mut lease = self.api.get(&self.settings.name).await?;
        let spec = lease.spec.take().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
            return Err(Error::new(Kind::Stale, "the Lease names another holder"));
        }
        lease.spec = Some(self.spec(spec.lease_transitions.unwrap_or_default(), spec.acquire_time));
        self.api.replace(&self.settings.name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    /// Gives up the leadership, so that the next process need not wait.
    pub async fn release(&self) {
        let result: Result<()> = async {
            let mut lease = self.api.get(&self.settings.name).await?;
            let Some(spec) =
                lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.settings.identity))
            else {
                return Ok(());
            };
            spec.holder_identity = None;
            self.api.replace(&self.settings.name, &PostParams::default(), &lease).await?;
            Ok(())
        }
        .await;
        if let Err(error) = result {
            warn!(%error, "The Lease could not be released");
        }
    }
}
