//! The report of `make bench`: one row for each figure, as JSON for programs and as the README's table.
//!
//! A figure is always the median of runs that alternate between us and a peer on the same machine, and its
//! row says where the load came from and which CPUs did what: without that a number means nothing. A bench
//! that ran alone replaces its own rows and leaves the others.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the report goes, below the workspace.
pub const REPORT_PATH: &str = "target/bench/report.json";

/// Which way a figure is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better: a gate is the least ratio.
    Higher,
    /// Less is better: a gate is the greatest ratio.
    Lower,
}

/// One pair of measurements, taken one right after the other.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Our figure.
    pub ours: f64,
    /// The peer's.
    pub theirs: f64,
    /// `ours / theirs`.
    pub ratio: f64,
}

impl Run {
    /// A pair and its ratio.
    pub fn new(ours: f64, theirs: f64) -> Self {
        Run { ours, theirs, ratio: ours / theirs }
    }
}

/// One figure of the report.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Bench, such as `table_lookup`.
    pub name: String,
    /// What distinguishes this row from others of the bench, such as `10M`.
    pub case: String,
    /// Median of ours.
    pub ours: f64,
    /// Whom or what we are compared with.
    pub peer: String,
    /// Median of theirs.
    pub theirs: f64,
    /// Unit of both.
    pub unit: String,
    /// Median of the runs' ratios `ours / theirs`.
    pub ratio: f64,
    /// Which way the figure is good.
    pub better: Better,
    /// The ratio that is asked for, if any is.
    pub gate: Option<f64>,
    /// Whether the ratio meets the gate.
    pub met: Option<bool>,
    /// What made the load.
    pub generator: String,
    /// What took it.
    pub sink: String,
    /// Which CPU did what.
    pub cpu_placement: String,
    /// Every pair of runs, in order.
    pub runs: Vec<Run>,
}

/// Who and what a row is about: everything but its figures.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// See [`Row::name`].
    pub name: &'a str,
    /// See [`Row::case`].
    pub case: &'a str,
    /// See [`Row::peer`].
    pub peer: &'a str,
    /// See [`Row::unit`].
    pub unit: &'a str,
    /// See [`Row::better`].
    pub better: Better,
    /// See [`Row::gate`].
    pub gate: Option<f64>,
    /// See [`Row::generator`].
    pub generator: &'a str,
    /// See [`Row::sink`].
    pub sink: &'a str,
    /// See [`Row::cpu_placement`].
    pub cpu_placement: &'a str,
}

impl Row {
    /// The row of a subject, from its runs: medians, and the gate judged.
    ///
    /// # Panics
    /// Without any run.
    pub fn from_runs(subject: &Subject<'_>, runs: Vec<Run>) -> Self {
        let ratio = median(runs.iter().map(|run| run.ratio));
        let met = subject.gate.map(|gate| match subject.better {
            Better::Higher => ratio >= gate,
            Better::Lower => ratio <= gate,
        });
        Row {
            name: subject.name.into(),
            case: subject.case.into(),
            ours: median(runs.iter().map(|run| run.ours)),
            peer: subject.peer.into(),
            theirs: median(runs.iter().map(|run| run.theirs)),
            unit: subject.unit.into(),
            ratio,
            better: subject.better,
            gate: subject.gate,
            met,
            generator: subject.generator.into(),
            sink: subject.sink.into(),
            cpu_placement: subject.cpu_placement.into(),
            runs,
        }
    }

    fn id(&self) -> (&str, &str, &str) {
        (&self.name, &self.case, &self.peer)
    }
}

/// The median; the mean of the middle two for an even number.
///
/// # Panics
/// Of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// A report that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A report is there, but it is not one of ours.
    #[error("{} is no report ({source}): remove it and run the benches anew", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// All rows.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// In the order of their first appearance.
    pub rows: Vec<Row>,
}

impl Report {
    /// Reads a report; an absent file is an empty one.
    pub fn load(path: &Path) -> Result<Self, ReportError> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| ReportError::Format { path: path.into(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Report::default()),
            Err(source) => Err(ReportError::Io { path: path.into(), source }),
        }
    }

    /// Adds rows; one with the same name, case and peer as an earlier one replaces it.
    pub fn merge(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            match self.rows.iter_mut().find(|old| old.id() == row.id()) {
                Some(old) => *old = row,
                None => self.rows.push(row),
            }
        }
    }

    /// Writes the report, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ReportError::Io { path, source }
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io(dir))?;
        }
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| ReportError::Format { path: path.into(), source })?;
        let unfinished = path.with_extension("json.new");
        fs::write(&unfinished, text + "\n").map_err(io(&unfinished))?;
        fs::rename(&unfinished, path).map_err(io(path))
    }

    /// Reads the report at `path`, merges `rows` in and writes it back.
    pub fn update(path: &Path, rows: impl IntoIterator<Item = Row>) -> Result<Self, ReportError> {
        let mut report = Report::load(path)?;
        report.merge(rows);
        report.write(path)?;
        Ok(report)
    }

    /// Rows whose gate is missed.
    pub fn missed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.met == Some(false))
    }

    /// The table for README.
    pub fn markdown(&self) -> String {
        let mut text = String::from("| bench | case | ours | peer | theirs | unit | ratio | gate |\n");
        text.push_str("|---|---|---:|---|---:|---|---:|---|\n");
        for row in &self.rows {
            let gate = match (row.gate, row.met) {
                (Some(gate), Some(met)) => {
                    let sign = if row.better == Better::Higher { "≥" } else { "≤" };
                    format!("{sign} {}, {}", figure(gate), if met { "met" } else { "**missed**" })
                }
                _ => "none".into(),
            };
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {} | {gate} |\n",
                row.name,
                row.case,
                figure(row.ours),
                row.peer,
                figure(row.theirs),
                row.unit,
                ratio(row.ratio)
            ));
        }
        text
    }
}

/// A number with three significant digits or all before the point.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Two digits behind the point, or two significant ones of what would show as nothing.
fn ratio(value: f64) -> String {
    if value <= 0.0 || value >= 0.005 {
        return format!("{value:.2}");
    }
    format!("{value:.*}", (1.0 - value.log10().floor()) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(case: &str, better: Better, gate: Option<f64>, ratios: &[f64]) -> Row {
        let subject = Subject {
            name: "bench",
            case,
            peer: "peer",
            unit: "M/s",
            better,
            gate,
            generator: "loop",
            sink: "none",
            cpu_placement: "CPU 1",
        };
        Row::from_runs(&subject, ratios.iter().map(|ratio| Run::new(*ratio, 1.0)).collect())
    }

    /// Goes red when a mean, or one lucky run, decides; or a gate is read the wrong way round.
    #[test]
    fn the_median_is_judged_in_the_right_direction() {
        let runs = [9.0, 2.0, 2.5, 0.1, 2.4];
        let met = |better, gate| row("c", better, Some(gate), &runs).met;
        assert_eq!(met(Better::Higher, 2.4), Some(true));
        assert_eq!(met(Better::Higher, 2.41), Some(false));
        assert_eq!(met(Better::Lower, 2.4), Some(true));
        assert_eq!(met(Better::Lower, 2.39), Some(false));
        assert_eq!(row("c", Better::Lower, None, &runs).met, None);
        assert_eq!(median([1.0, 4.0, 2.0, 3.0]), 2.5);
    }

    /// Goes red when a second run adds rows instead of replacing its own, or loses those of others.
    #[test]
    fn a_bench_replaces_its_own_rows_and_keeps_the_others() {
        let dir = std::env::temp_dir().join(format!("tidegate-report-{}", std::process::id()));
        let path = dir.join("deeper/report.json");
        let first = [row("a", Better::Higher, None, &[1.0]), row("b", Better::Higher, None, &[1.0])];
        Report::update(&path, first).unwrap();
        let again = Report::update(&path, [row("a", Better::Higher, Some(9.0), &[2.0])]).unwrap();
        assert_eq!(
            again.rows.iter().map(|r| (r.case.as_str(), r.ratio)).collect::<Vec<_>>(),
            [("a", 2.0), ("b", 1.0)]
        );
        assert_eq!(Report::load(&path).unwrap(), again);
        assert_eq!(again.missed().count(), 1);
        assert!(again.markdown().contains("≥ 9.00, **missed**"));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(Report::load(&path), Err(ReportError::Format { .. })));
        fs::remove_dir_all(dir).unwrap();
    }

    /// The names are read by programs outside. Goes red when a field is renamed.
    #[test]
    fn the_fields_keep_their_names() {
        let json = serde_json::to_value(row("a", Better::Lower, Some(1.0), &[1.0])).unwrap();
        let fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "name",
            "case",
            "ours",
            "peer",
            "theirs",
            "unit",
            "ratio",
            "better",
            "gate",
            "met",
            "generator",
            "sink",
            "cpu_placement",
            "runs",
        ];
        expected.sort_unstable();
        let mut fields = fields;
        fields.sort_unstable();
        assert_eq!(fields, expected);
        assert_eq!(json["better"], "lower");
    }

    #[test]
    fn a_small_ratio_is_not_nothing() {
        // With a fixed number of digits the first would read 0.00, and a precision that is off by one cut it to one.
        let shown = [0.000_140_2, 0.004_96, 0.005, 0.9, 12.961, 0.0].map(ratio);
        assert_eq!(shown, ["0.00014", "0.0050", "0.01", "0.90", "12.96", "0.00"]);
    }
}
