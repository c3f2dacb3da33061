//! What a member says about itself: its command line's JSON, and its metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Lab, Member, http_get};
use crate::LabError;
use crate::sys::{Netns, Output};

/// How long a node gives one answer to all who scrape it, and a little more.
const SHARED_FOR: Duration = Duration::from_millis(110);

/// The samples of one scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics(Vec<Sample>);

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Scrapes the daemon in a node's namespace.
    pub fn scrape(node: &Netns) -> Result<Metrics, LabError> {
        match http_get(node, "/metrics")? {
            (200, text) => Ok(Metrics::parse(&text)),
            (status, text) => Err(LabError::Check(format!("/metrics answers {status}: {text}"))),
        }
    }

    /// Reads the Prometheus text format; what is no sample is left out.
    pub fn parse(text: &str) -> Metrics {
        Metrics(text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_sample).collect())
    }

    /// The sum of all samples of that name that have these labels; `None` if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted = |sample: &&Sample| {
            let has =
                |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(has)
        };
        let mut values = self.0.iter().filter(wanted).map(|sample| sample.value).peekable();
        values.peek()?;
        Some(values.sum())
    }
}

impl Member<'_> {
    /// Runs a `tidegate` verb with `-o json` and reads what it prints. Exit code 5 (degraded) still prints.
    pub fn json(&self, verb: &[&str]) -> Result<Value, LabError> {
        let mut arguments = verb.to_vec();
        arguments.extend(["-o", "json"]);
        let output = self.tidegate(&arguments)?;
        if !matches!(output.code, Some(0 | 5)) {
            return Err(LabError::Check(failed(&arguments, &output)));
        }
        serde_json::from_str(&output.stdout)
            .map_err(|error| LabError::Check(format!("tidegate {} printed no JSON: {error}", verb.join(" "))))
    }

    /// The sessions that the filters name.
    pub fn sessions(&self, filters: &[&str]) -> Result<Vec<Value>, LabError> {
        let mut verb = vec!["session", "list"];
        verb.extend(filters);
        match self.json(&verb)? {
            Value::Array(sessions) => Ok(sessions),
            other => Err(LabError::Check(format!("session list printed {other}"))),
        }
    }

    /// How many packets it dropped for a reason.
    pub fn drops(&self, reason: &str) -> Result<u64, LabError> {
        let drops = self.json(&["drops"])?;
        let reasons = drops["reasons"].as_array().into_iter().flatten();
        let found = reasons.filter(|drop| drop["reason"] == reason).find_map(|drop| drop["packets"].as_u64());
        found.ok_or_else(|| LabError::Check(format!("no reason {reason} in `tidegate drops`")))
    }

    /// Its metrics, none of them older than this call. Scrapes within a tenth of a second share one answer, so that
    /// time passes first.
    pub fn metrics(&self) -> Result<Metrics, LabError> {
        std::thread::sleep(SHARED_FOR);
        Metrics::scrape(&self.netns())
    }
}

/// Node 1, which is all there is in most labs.
impl Lab {
    /// See [`Member::tidegate`].
    pub fn tidegate(&self, arguments: &[&str]) -> Result<Output, LabError> {
        self.at(1).tidegate(arguments)
    }

    /// See [`Member::json`].
    pub fn json(&self, verb: &[&str]) -> Result<Value, LabError> {
        self.at(1).json(verb)
    }

    /// See [`Member::sessions`].
    pub fn sessions(&self, filters: &[&str]) -> Result<Vec<Value>, LabError> {
        self.at(1).sessions(filters)
    }

    /// See [`Member::drops`].
    pub fn drops(&self, reason: &str) -> Result<u64, LabError> {
        self.at(1).drops(reason)
    }

    /// See [`Member::metrics`].
    pub fn metrics(&self) -> Result<Metrics, LabError> {
        self.at(1).metrics()
    }
}

/// A verb that did not succeed, in words.
pub(super) fn failed(arguments: &[&str], output: &Output) -> String {
    let code = output.code.map_or("a signal".into(), |code| format!("exit code {code}"));
    format!("tidegate {} ended with {code}: {}", arguments.join(" "), output.stderr.trim_end())
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        None => (series, BTreeMap::new()),
        Some((name, rest)) => (name, parse_labels(rest.strip_suffix('}')?)?),
    };
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

/// `a="x",b="y"`; values may hold escaped quotes and commas.
fn parse_labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => value.push(characters.next()?.1),
                (at, '"') => break at,
                (_, character) => value.push(character),
            }
        };
        labels.insert(key.trim_start_matches(',').trim().to_owned(), value);
        text = &rest[end + 1..];
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_sum_over_the_labels_that_are_not_asked_for() {
        let text = "# HELP x y\nx{port=\"a,\\\"b\",q=\"0\"} 2\nx{port=\"c\",q=\"0\"} 3.5\nx_total 7\n\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("x", &[]), Some(5.5));
        assert_eq!(metrics.sum("x", &[("port", "a,\"b")]), Some(2.0));
        assert_eq!(metrics.sum("x_total", &[]), Some(7.0));
        assert_eq!(metrics.sum("x", &[("port", "d")]), None);
    }
}
