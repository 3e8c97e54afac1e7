//! Reads what happened from the change feed into the outboxes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::warn;

use super::{Reporter, job_key};
use crate::error::{Error, Kind, Result};
use crate::file360::model::{Change, ChangeKind, ChangePage, Link};
use crate::reports::event;
use crate::reports::hosts::pause;
use crate::reports::mailbox::Mailbox;
use crate::reports::outbox::{Occurrence, Outbox};

/// Workspaces whose outboxes are written at once.
const WRITERS: usize = 16;
/// Where nothing concerns a report, the position is kept at most this often.
const POSITION_EVERY: Duration = Duration::from_mins(1);

/// How far the feed was read. What is behind it is in the outboxes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Position {
    cursor: String,
    epoch: String,
    at: Timestamp,
    /// Of the last entry; 0: unknown.
    #[serde(skip)]
    sequence: u64,
    #[serde(skip)]
    etag: Option<String>,
    #[serde(skip)]
    kept: Option<(String, Instant)>,
}

impl Reporter {
    pub(super) async fn find_position(&self) -> Result<Position> {
        let document = format!("{}position", self.prefix);
        if let Some(found) = self.session.driver.client_state(&document).await?
            && let Ok(position) = serde_json::from_value::<Position>(found.value)
        {
            let kept = Some((position.cursor.clone(), Instant::now()));
            return Ok(Position { etag: Some(found.etag), kept, ..position });
        }
        let mut position = self.end_of_feed().await?;
        self.keep(&mut position).await?;
        Ok(position)
    }

    async fn end_of_feed(&self) -> Result<Position> {
        let end = self.session.driver.changes("now", Duration::ZERO).await?;
        let (cursor, epoch, at) = (end.next_cursor, end.feed_epoch, Timestamp::now());
        Ok(Position { cursor, epoch, at, sequence: 0, etag: None, kept: None })
    }

    async fn keep(&self, at: &mut Position) -> Result<()> {
        let document = format!("{}position", self.prefix);
        let value = serde_json::to_value(&*at).unwrap_or_default();
        let kept = self.session.driver.put_client_state(&document, &value, at.etag.as_deref()).await;
        match kept {
            Ok(etag) => at.etag = Some(etag),
            Err(error) if error.kind == Kind::Stale && error.code != "fenced" => {
                // An own write whose reply was lost. The position of the one who reads counts.
                let found = self.session.driver.client_state(&document).await?;
                at.etag = found.map(|found| found.etag);
                at.etag = Some(self.session.driver.put_client_state(&document, &value, at.etag.as_deref()).await?);
            }
            Err(error) => return Err(error),
        }
        at.kept = Some((at.cursor.clone(), Instant::now()));
        Ok(())
    }

    /// Reads until the task is dropped.
    pub(super) async fn read(&self) {
        let mut failures = 0;
        let mut position: Option<Position> = None;
        loop {
            let ended = self.follow(&mut position).await;
            let error = match ended {
                Ok(never) => match never {},
                Err(error) => error,
            };
            let result = match (&mut position, error.kind) {
                (_, Kind::Stopping) => return,
                (Some(at), Kind::Expired) => self.lost_track(at).await,
                _ => Err(error),
            };
            failures = if result.is_ok() { 0 } else { failures + 1 };
            if let Err(error) = result {
                warn!(%error, failures, "What is to be reported cannot be read; trying again");
                tokio::time::sleep(error.retry_after.unwrap_or_else(|| pause(failures))).await;
            }
        }
    }

    async fn follow(&self, position: &mut Option<Position>) -> Result<std::convert::Infallible> {
        self.begin().await?;
        let mut live = self.session.pages();
        if let Some(start) = self.start.lock().take() {
            *position = Some(start);
        }
        let at = position.as_mut().ok_or_else(|| Error::new(Kind::Stopping, "somebody else reads"))?;
        self.catch_up(at).await?;
        loop {
            let is_kept = at.kept.as_ref().is_some_and(|(cursor, _)| *cursor == at.cursor);
            let keep_at = at.kept.as_ref().map_or_else(Instant::now, |(_, when)| *when + POSITION_EVERY);
            tokio::select! {
                page = live.recv() => match page {
                    Ok(page) => self.take_live(at, &page).await?,
                    Err(RecvError::Lagged(_)) => {
                        live = self.session.pages();
                        self.catch_up(at).await?;
                    }
                    Err(RecvError::Closed) => return Err(Error::new(Kind::Stopping, "the session ended")),
                },
                () = tokio::time::sleep_until(keep_at), if !is_kept => self.keep(at).await?,
            }
        }
    }

    async fn catch_up(&self, at: &mut Position) -> Result<()> {
        loop {
            let page = self.session.driver.changes(&at.cursor, Duration::ZERO).await?;
            let is_last = page.items.is_empty();
            self.take(at, &page).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// A page of the session's own reader: after a hole the feed is read here.
    async fn take_live(&self, at: &mut Position, page: &ChangePage) -> Result<()> {
        let first = page.items.first().map_or(0, |change| change.sequence);
        if at.sequence == 0 || first > at.sequence + 1 {
            return self.catch_up(at).await;
        }
        self.take(at, page).await
    }

    async fn take(&self, at: &mut Position, page: &ChangePage) -> Result<()> {
        if page.feed_epoch != at.epoch {
            return Err(Error::new(Kind::Expired, "the feed's history was replaced"));
        }
        let mut concerned: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
        for change in page.items.iter().filter(|change| change.sequence > at.sequence) {
            let Some(workspace) = change.workspace_id.as_deref() else { continue };
            let possible = [true, false].into_iter().filter_map(|is_there| event::of_change(change.kind, is_there));
            let wanted = possible.fold(0, |all, event| all | event.bit());
            if wanted != 0 && self.known(workspace).is_some_and(|mailbox| mailbox.known.lock().wants & wanted != 0) {
                concerned.entry(workspace).or_default().push(change);
            }
        }
        let any = !concerned.is_empty();
        let epoch = &page.feed_epoch;
        let put: Vec<_> =
            concerned.into_iter().map(|(workspace, changes)| self.put(workspace, changes, epoch).boxed()).collect();
        futures::stream::iter(put).buffer_unordered(WRITERS).try_collect::<()>().await?;
        if let Some(last) = page.items.last() {
            at.sequence = at.sequence.max(last.sequence);
            at.at = last.time;
        }
        at.cursor.clone_from(&page.next_cursor);
        if any {
            self.keep(at).await?;
        }
        Ok(())
    }

    /// Puts what happened to one workspace into its outbox.
    async fn put(&self, workspace: &str, changes: Vec<&Change>, epoch: &str) -> Result<()> {
        let Some(mailbox) = self.known(workspace) else { return Ok(()) };
        let is_share = |change: &&&Change| change.kind == ChangeKind::LinkChanged;
        let links: HashSet<String> = match changes.iter().find(is_share) {
            Some(_) => self.links(workspace).await?.into_iter().map(|link| link.id).collect(),
            None => HashSet::new(),
        };
        let entries: Vec<(u64, Option<u64>, Option<Occurrence>)> = changes
            .into_iter()
            .map(|change| {
                let is_open = change.subject.as_ref().is_some_and(|link| links.contains(link));
                let by_operator = self.session.identity.is(&change.actor);
                let what = event::of_change(change.kind, is_open);
                let what = what.map(|event| event::occurrence(change, event, by_operator));
                let is_state = matches!(change.kind, ChangeKind::MemberSet | ChangeKind::MemberRemoved);
                (change.sequence, change.revision.filter(|_| is_state), what)
            })
            .collect();
        let take_in = |outbox: &mut Option<Outbox>| {
            let outbox = outbox.as_mut()?;
            for (sequence, revision, what) in &entries {
                // `Provisioned` stands for what was there then.
                let is_old = revision.is_some_and(|revision| revision <= outbox.revision);
                outbox.take_in(epoch, *sequence, what.clone().filter(|_| !is_old));
            }
            Some((outbox.namespace.clone(), outbox.waiting()))
        };
        if let Some((namespace, waiting)) = self.with(&mailbox, take_in).await? {
            waiting.iter().for_each(|sink| self.queue.push(job_key(&namespace, workspace, sink)));
        }
        Ok(())
    }

    /// The open links of a workspace; none, once it is gone.
    pub(super) async fn links(&self, workspace: &str) -> Result<Vec<Link>> {
        match self.session.driver.links(workspace).await {
            Err(error) if error.kind == Kind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// The feed does not reach back: every workspace that reports says so, and the feed goes on at its end.
    async fn lost_track(&self, at: &mut Position) -> Result<()> {
        let end = self.end_of_feed().await?;
        let (since, until) = (at.at, end.at);
        warn!(%since, %until, "The change feed does not reach back to what was reported last; receivers are told");
        let boxes: Vec<_> = self.boxes.lock().iter().map(|(id, mailbox)| (id.clone(), mailbox.clone())).collect();
        let concerned = boxes.iter().filter(|(_, mailbox)| mailbox.known.lock().wants != 0);
        let told: Vec<_> = concerned.map(|(id, mailbox)| self.say_lost(id, mailbox, since, until).boxed()).collect();
        futures::stream::iter(told).buffer_unordered(WRITERS).try_collect::<()>().await?;
        *at = Position { etag: at.etag.take(), ..end };
        self.keep(at).await
    }

    async fn say_lost(&self, workspace: &str, mailbox: &Mailbox, since: Timestamp, until: Timestamp) -> Result<()> {
        let say = |outbox: &mut Option<Outbox>| {
            let outbox = outbox.as_mut()?;
            outbox.lost_track(since, until);
            Some((outbox.namespace.clone(), outbox.waiting()))
        };
        if let Some((namespace, waiting)) = self.with(mailbox, say).await? {
            waiting.iter().for_each(|sink| self.queue.push(job_key(&namespace, workspace, sink)));
        }
        Ok(())
    }
}
