//! What is read from the kernel and from the API server's audit log.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Deserialize;

/// The kernel counts processor time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process so far.
pub fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut times = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
    let mut next = || times.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (next() + next()) / TICKS_PER_SECOND
}

/// Resident memory now.
pub fn rss_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:") * 1024
}

/// The most memory that was ever resident.
pub fn peak_rss_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:") * 1024
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// The process whose program is called `program` and whose command line contains `argument`.
pub fn pid_of(program: &str, argument: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let name = Path::new(line.split('\0').next()?).file_name()?.to_str()? == program;
        (name && line.contains(argument)).then_some(pid)
    })
}

/// Processor time of several processes between two moments.
pub struct CpuClock {
    pids: Vec<(&'static str, u32)>,
    before: Vec<f64>,
    started: Instant,
}

impl CpuClock {
    /// Starts counting.
    pub fn start(pids: Vec<(&'static str, u32)>) -> Self {
        let before = pids.iter().map(|(_, pid)| cpu_seconds(*pid)).collect();
        Self { pids, before, started: Instant::now() }
    }

    /// Seconds for each process since the start.
    pub fn read(&self) -> BTreeMap<&'static str, f64> {
        let now = self.pids.iter().zip(&self.before);
        now.map(|((name, pid), before)| (*name, round(cpu_seconds(*pid) - before, 2))).collect()
    }

    /// Milliseconds of all processes together since the start, for each of `count`, without the `baseline` of so many cores
    /// that is used anyway: the longer of two runs would have more of it.
    pub fn ms_each(&self, count: usize, baseline: f64) -> f64 {
        let all = self.read().values().sum::<f64>() - baseline * self.started.elapsed().as_secs_f64();
        all * 1000.0 / float(count as u64)
    }
}

/// Requests of one user by `resource/subresource verb`.
#[derive(Default)]
pub struct Requests {
    /// Create, update, patch, delete.
    pub writes: BTreeMap<String, u64>,
    /// Everything else.
    pub reads: BTreeMap<String, u64>,
    /// Writes to everything but Leases, by the second in which they ended.
    pub writes_by_second: BTreeMap<String, u64>,
}

impl Requests {
    /// Writes to everything but Leases.
    pub fn writes_besides_leases(&self) -> u64 {
        self.writes_by_second.values().sum()
    }

    /// The most writes to everything but Leases that ended in one second.
    pub fn most_writes_in_a_second(&self) -> u64 {
        self.writes_by_second.values().copied().max().unwrap_or_default()
    }
}

/// The API server's audit log.
pub struct AuditLog {
    path: PathBuf,
    user: String,
    offset: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    stage: &'a str,
    verb: &'a str,
    user: User<'a>,
    object_ref: Option<ObjectRef<'a>>,
    stage_timestamp: &'a str,
}

#[derive(Deserialize)]
struct User<'a> {
    username: &'a str,
}

#[derive(Deserialize)]
struct ObjectRef<'a> {
    #[serde(default)]
    resource: &'a str,
    #[serde(default)]
    subresource: &'a str,
}

impl AuditLog {
    /// Looks at the requests of `user` only.
    pub fn new(path: PathBuf, user: String) -> Self {
        Self { path, user, offset: 0 }
    }

    /// What was asked since the last call.
    pub fn since_last(&mut self) -> Requests {
        let mut file = std::fs::File::open(&self.path).expect("the audit log");
        file.seek(SeekFrom::Start(self.offset)).expect("the audit log can be read on");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("the audit log is text");
        // The last line may be half written: it is read next time.
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        let mut requests = Requests::default();
        text[..whole].lines().for_each(|line| self.count(line, &mut requests));
        requests
    }

    fn count(&self, line: &str, requests: &mut Requests) {
        // A cheap look first: most lines are other users'.
        if !line.contains(&self.user) {
            return;
        }
        let entry: Entry = serde_json::from_str(line).expect("a line of the audit log");
        if entry.user.username != self.user || entry.stage != "ResponseComplete" {
            return;
        }
        let what = entry.object_ref.map_or_else(
            || "other".to_owned(),
            |object| match object.subresource {
                "" => object.resource.to_owned(),
                subresource => format!("{}/{subresource}", object.resource),
            },
        );
        let is_write = matches!(entry.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
        if is_write && !what.starts_with("leases") {
            let second = entry.stage_timestamp.split('.').next().unwrap_or_default();
            *requests.writes_by_second.entry(second.to_owned()).or_default() += 1;
        }
        let by_kind = if is_write { &mut requests.writes } else { &mut requests.reads };
        *by_kind.entry(format!("{what} {}", entry.verb)).or_default() += 1;
    }
}

/// The value below which `percent` of `sorted` lie; 0 of nothing.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// 50th and 99th percentile and the largest of some times.
pub fn quantiles(mut times: Vec<f64>) -> Quantiles {
    times.sort_by(f64::total_cmp);
    Quantiles { p50: percentile(&times, 50), p99: percentile(&times, 99), most: percentile(&times, 100) }
}

/// See [`quantiles`].
#[derive(Clone, Copy)]
pub struct Quantiles {
    /// Half of them take longer.
    pub p50: f64,
    /// One in a hundred takes longer.
    pub p99: f64,
    /// None takes longer.
    pub most: f64,
}

/// `value` with so many digits after the point: more would only look exact.
pub fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Counts in reports are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss, reason = "counts below 2^52")]
pub fn float(count: u64) -> f64 {
    count as f64
}
