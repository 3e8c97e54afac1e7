//! What the rules would do with the files that are there; nothing is touched.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::engine::DEAD_SHOWN;
use super::items::ItemSource;
use super::ledger::Names;
use super::reader::scanned;
use super::recorded::Recorded;
use super::route::Route;
use super::work::{Look, Source};
use crate::api::file_route::{DryRunExample, DryRunStatus};
use crate::error::{Error, Kind, Result, clean};

/// How far back files count, when the spec does not say.
pub const DEFAULT_LOOKBACK: &str = "P7D";

/// Looks at every file of the route that came or changed within `lookback`.
pub async fn run(route: &Route, source: &Arc<ItemSource>, lookback: &str, now: Timestamp) -> Result<DryRunStatus> {
    let span: Span = lookback.parse().map_err(|_| Error::new(Kind::Rejected, "spec.lookback is no period such as P7D"))?;
    let since = now.to_zoned(TimeZone::UTC).checked_sub(span);
    let since = since.map_err(|_| Error::new(Kind::Rejected, "spec.lookback is out of range"))?.timestamp();
    let mut found = Found::default();
    for workspace in source.scope.ids() {
        look_through(route, source, &workspace, since, &mut found).await?;
    }
    Ok(found.told(lookback))
}

async fn look_through(
    route: &Route,
    source: &Arc<ItemSource>,
    workspace: &str,
    since: Timestamp,
    found: &mut Found,
) -> Result<()> {
    let (root, facet) = (source.pattern.root(), Names::of(&route.id).facet);
    let mut files = Recorded::of(&*source.tenant, workspace, &root, &facet);
    loop {
        let item = match files.next().await {
            Ok(Some(item)) => item,
            Ok(None) => return Ok(()),
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !source.is_ours(&item) || item.modified_at < since {
            continue;
        }
        let recorded = files.record(&item).await?.map(|record| record.rule).unwrap_or_default();
        let Look::Here(loaded) = source.look(&scanned(&item)).await? else { continue };
        let verdict = match route.rules.decide(&loaded.facts.variables(Timestamp::now())) {
            Ok(verdict) => verdict.name,
            Err(failed) => format!("failed: {failed}"),
        };
        found.add(&item.path, &recorded, &verdict);
    }
}

#[derive(Default)]
struct Found {
    files: u64,
    would_change: u64,
    would_be_unmatched: u64,
    examples: Vec<DryRunExample>,
}

impl Found {
    fn add(&mut self, path: &str, recorded: &str, verdict: &str) {
        self.files += 1;
        self.would_be_unmatched += u64::from(verdict == super::rules::UNMATCHED);
        if recorded == verdict {
            return;
        }
        self.would_change += 1;
        if self.examples.len() < DEAD_SHOWN {
            self.examples.push(DryRunExample { file: clean(path, 1024), from: clean(recorded, 63), to: clean(verdict, 63) });
        }
    }

    fn told(self, lookback: &str) -> DryRunStatus {
        let Self { files, would_change, would_be_unmatched, examples } = self;
        let summary = format!(
            "of {files} files of the last {}, {would_change} would change route, {would_be_unmatched} would be unmatched",
            spelled(lookback)
        );
        DryRunStatus { summary, files, would_change, would_be_unmatched, examples }
    }
}

/// `P7D` as `7 days`; anything longer as it is.
fn spelled(period: &str) -> String {
    let number =
        |unit| period.strip_prefix('P').and_then(|rest| rest.strip_suffix(unit)).filter(|text| text.parse::<u32>().is_ok());
    match (number('D'), number('W')) {
        (Some(days), _) => format!("{days} days"),
        (None, Some(weeks)) => format!("{weeks} weeks"),
        _ => period.to_owned(),
    }
}
