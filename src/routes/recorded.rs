//! Files of a workspace, each with what is recorded of it.

use std::collections::VecDeque;

use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::ledger::{Record, pages};
use crate::documents::record::{REQUIREMENT, Recorded as Document, parse};
use crate::error::Result;
use crate::file360::File360;
use crate::file360::model::{Facet, Item};

/// What the operator noted about files as required documents, read beside a listing of files: both come in the order of their ids.
pub struct Noted<'a> {
    facets: BoxStream<'a, Result<Vec<Facet>>>,
    page: VecDeque<Facet>,
}

impl<'a> Noted<'a> {
    /// Everything that is noted in a workspace. It is read only when somebody asks.
    pub fn of(tenant: &'a dyn File360, workspace: &'a str) -> Self {
        let facets =
            pages(move |cursor| async move { tenant.facets(REQUIREMENT, Some(workspace), cursor.as_deref()).await });
        Self { facets: Box::pin(facets), page: VecDeque::new() }
    }

    /// What is noted beside the versions of a file, the oldest first, in the order in which files come.
    pub async fn beside(&mut self, item: &Item) -> Result<Vec<(u64, Document)>> {
        let mut found = Vec::new();
        loop {
            while let Some(facet) = self.page.front() {
                if facet.item_id > item.id {
                    return Ok(found);
                }
                if facet.item_id == item.id
                    && let Some(document) = parse(&facet.value)
                {
                    found.push((facet.version, document));
                }
                self.page.pop_front();
            }
            match self.facets.try_next().await? {
                Some(page) => self.page = page.into(),
                None => return Ok(found),
            }
        }
    }
}

/// Reads files and records side by side: both come in the order of their ids, so one page of each is enough.
pub struct Recorded<'a> {
    files: BoxStream<'a, Result<Vec<Item>>>,
    records: BoxStream<'a, Result<Vec<Facet>>>,
    file_page: VecDeque<Item>,
    record_page: VecDeque<Facet>,
    has_older: bool,
}

impl<'a> Recorded<'a> {
    /// The files below `path`, with the records of that facet. Records are read only when somebody asks.
    pub fn of(tenant: &'a dyn File360, workspace: &'a str, path: &'a str, facet: &'a str) -> Self {
        let files = pages(move |cursor| async move { tenant.files(workspace, path, cursor.as_deref()).await });
        let records = pages(move |cursor| async move { tenant.facets(facet, Some(workspace), cursor.as_deref()).await });
        let (file_page, record_page) = Default::default();
        Self { files: Box::pin(files), records: Box::pin(records), file_page, record_page, has_older: false }
    }

    /// The next file; `None` after the last. A listing that fails did not end.
    pub async fn next(&mut self) -> Result<Option<Item>> {
        while self.file_page.is_empty() {
            match self.files.try_next().await? {
                Some(page) => self.file_page = page.into(),
                None => return Ok(None),
            }
        }
        Ok(self.file_page.pop_front())
    }

    /// The record of the visible version of a file, in the order in which files come.
    pub async fn record(&mut self, item: &Item) -> Result<Option<Record>> {
        let wanted = (item.id.as_str(), item.version.unwrap_or_default());
        self.has_older = false;
        loop {
            while let Some(facet) = self.record_page.front() {
                match (facet.item_id.as_str(), facet.version).cmp(&wanted) {
                    std::cmp::Ordering::Less => {
                        self.has_older |= facet.item_id == item.id;
                        self.record_page.pop_front()
                    }
                    std::cmp::Ordering::Equal => return Ok(serde_json::from_value(facet.value.clone()).ok()),
                    std::cmp::Ordering::Greater => return Ok(None),
                };
            }
            match self.records.try_next().await? {
                Some(page) => self.record_page = page.into(),
                None => return Ok(None),
            }
        }
    }

    /// Whether an earlier version of the file that was asked for last has a record.
    pub fn has_older(&self) -> bool {
        self.has_older
    }
}
