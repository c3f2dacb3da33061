//! `session list --sort`: the first so many of all sessions that match, kept while they stream by, so
//! that memory is bounded by the limit and not by the table.

use super::error::ApiError;
use crate::api::Session;
use crate::diagnostic::nearest;
use std::collections::BinaryHeap;
use tidegate_dataplane::addr::Addr;
use tidegate_dataplane::engine::SessionView;
use tidegate_dataplane::session::State;
use tidegate_dataplane::session::record::SessionId;

/// Sessions that a sorted listing shows when no limit is given.
pub(super) const LIMIT_DEFAULT: u64 = 1_000;
/// Most sessions that a sorted listing shows.
pub(super) const LIMIT_MAX: u64 = 100_000;

/// What a session is sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Duration,
    Idle,
    Remaining,
    Timeout,
    Packets,
    Bytes,
    Protocol,
    State,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
}

const FIELDS: [(&str, Field); 12] = [
    ("duration", Field::Duration),
    ("idle", Field::Idle),
    ("remaining", Field::Remaining),
    ("timeout", Field::Timeout),
    ("packets", Field::Packets),
    ("bytes", Field::Bytes),
    ("protocol", Field::Protocol),
    ("state", Field::State),
    ("source", Field::Source),
    ("destination", Field::Destination),
    ("source-port", Field::SourcePort),
    ("destination-port", Field::DestinationPort),
];

/// A field and a direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Order {
    field: Field,
    descending: bool,
}

impl Order {
    /// `FIELD`, `FIELD:asc` or `FIELD:desc`.
    pub(super) fn parse(text: &str) -> Result<Order, ApiError> {
        let (name, direction) = text.split_once(':').unwrap_or((text, "asc"));
        let plain = name.trim().to_ascii_lowercase().replace('_', "-");
        let Some((_, field)) = FIELDS.iter().find(|(n, _)| *n == plain) else {
            let help = match nearest(&plain, FIELDS.iter().map(|(n, _)| *n)) {
                Some(n) => format!("did you mean {n}?"),
                None => format!("one of: {}", FIELDS.map(|(n, _)| n).join(", ")),
            };
            return Err(ApiError::usage(format!("--sort {text}: no such field\n  help: {help}")));
        };
        let descending = match direction.trim() {
            "asc" => false,
            "desc" => true,
            _ => {
                let help = format!("write --sort {plain} or --sort {plain}:desc");
                return Err(ApiError::usage(format!("--sort {text}: no such direction\n  help: {help}")));
            }
        };
        Ok(Order { field: *field, descending })
    }

    /// The smaller, the sooner it is shown.
    fn key(self, v: &SessionView) -> u128 {
        let t = &v.wings[0].tuple;
        let never = u128::from(u64::MAX);
        let value = match self.field {
            Field::Duration => v.duration_ms.into(),
            Field::Idle => v.idle_ms.into(),
            Field::Remaining => v.remaining_ms.map_or(never, u128::from),
            Field::Timeout => v.timeout.and_then(|t| t.timeout_ms).map_or(never, u128::from),
            Field::Packets => u128::from(v.wings[0].packets) + u128::from(v.wings[1].packets),
            Field::Bytes => u128::from(v.wings[0].bytes) + u128::from(v.wings[1].bytes),
            Field::Protocol => t.protocol.into(),
            Field::State => (v.state as u8).into(),
            Field::Source => t.src.0,
            Field::Destination => t.dst.0,
            Field::SourcePort => t.src_port.into(),
            Field::DestinationPort => t.dst_port.into(),
        };
        if self.descending { !value } else { value }
    }
}

impl Order {
    /// Where a session stands that another node shows, among those of [`Order::key`].
    pub(super) fn key_of(self, s: &Session) -> (u128, SessionId) {
        let ms = |seconds: f64| (seconds.max(0.0) * 1000.0).round() as u128;
        let never = u128::from(u64::MAX);
        let address = |text: &str| text.parse::<std::net::IpAddr>().map_or(0, |ip| Addr::from(ip).0);
        let wing = &s.forward;
        let value = match self.field {
            Field::Duration => ms(s.age_s),
            Field::Idle => ms(s.idle_s),
            Field::Remaining => s.remaining_s.map_or(never, ms),
            Field::Timeout => s.timeout_s.map_or(never, ms),
            Field::Packets => u128::from(s.forward.packets) + u128::from(s.reply.packets),
            Field::Bytes => u128::from(s.forward.bytes) + u128::from(s.reply.bytes),
            Field::Protocol => s.protocol_number.into(),
            Field::State => State::ALL.iter().position(|state| state.name() == s.state).unwrap_or(0) as u128,
            Field::Source => address(&wing.source),
            Field::Destination => address(&wing.destination),
            Field::SourcePort => wing.source_port.unwrap_or(0).into(),
            Field::DestinationPort => wing.destination_port.unwrap_or(0).into(),
        };
        (if self.descending { !value } else { value }, s.id.parse().unwrap_or_default())
    }
}

/// A session in the heap; the id decides among equals, so that the same table gives the same list.
struct Entry {
    key: (u128, SessionId),
    worker: u16,
    view: Box<SessionView>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// The first `limit` of everything that is pushed.
pub(super) struct Top {
    order: Order,
    limit: usize,
    /// The last of those kept is on top.
    heap: BinaryHeap<Entry>,
    /// Everything that was pushed.
    pub(super) seen: u64,
}

impl Top {
    pub(super) fn new(order: Order, limit: usize) -> Self {
        Top { order, limit, heap: BinaryHeap::new(), seen: 0 }
    }

    pub(super) fn push(&mut self, view: SessionView, worker: u16) {
        self.seen += 1;
        let key = (self.order.key(&view), view.id);
        if self.heap.len() == self.limit {
            if self.heap.peek().is_none_or(|last| last.key <= key) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(Entry { key, worker, view: Box::new(view) });
    }

    /// What was kept, in order, each with its worker.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = (SessionView, u16)> {
        self.heap.into_sorted_vec().into_iter().map(|e| (*e.view, e.worker))
    }
}

/// How many a sorted listing shows.
pub(super) fn limit(asked: Option<u64>) -> Result<u64, ApiError> {
    match asked {
        None => Ok(LIMIT_DEFAULT),
        Some(n) if n <= LIMIT_MAX => Ok(n),
        Some(n) => Err(ApiError::usage(format!(
            "--limit {n} with --sort: at most {LIMIT_MAX} are sorted\n  help: narrow it by filters, or list without \
             --sort and sort the output"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_dataplane::addr::Tuple;
    use tidegate_dataplane::engine::WingView;
    use tidegate_dataplane::names::{AppId, RuleId, ZoneId};
    use tidegate_dataplane::session::State;

    fn view(n: u64, bytes: u64) -> SessionView {
        let tuple = Tuple {
            src: std::net::IpAddr::from([10, 0, 0, 1]).into(),
            dst: std::net::IpAddr::from([10, 0, 0, 2]).into(),
            src_port: 1,
            dst_port: 2,
            protocol: 17,
        };
        let wing = WingView {
            tuple,
            zone: ZoneId(0),
            ingress: None,
            egress: None,
            packets: 1,
            bytes,
            facts: Default::default(),
        };
        SessionView {
            id: SessionId { origin: 1, boot: 1, counter: n },
            state: State::OneWay,
            wings: [wing, WingView { bytes: 0, ..wing }],
            rule: RuleId(0),
            application: AppId(0),
            revision: 1,
            timeout: None,
            idle_ms: 0,
            remaining_ms: None,
            duration_ms: 0,
            owner: None,
            shared: false,
            others_packets: [0; 2],
            others_bytes: [0; 2],
        }
    }

    #[test]
    fn the_first_of_many_are_kept_in_order_and_no_more_than_the_limit() {
        // Keep the wrong end of the order, or everything, and this fails.
        for (text, want) in [("bytes", [0, 1, 2]), ("bytes:desc", [999, 998, 997]), ("packets", [0, 1, 2])] {
            let mut top = Top::new(Order::parse(text).unwrap(), 3);
            for n in 0..1000u64 {
                // 7 and 1000 have no common factor: every number once, in no order.
                let n = n * 7 % 1000;
                top.push(view(n, n), 0);
                assert!(top.heap.len() <= 3);
            }
            assert_eq!(top.seen, 1000);
            let got: Vec<u64> = top.into_sorted().map(|(v, _)| v.id.counter).collect();
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn fields_directions_and_limits_are_checked() {
        // Take an unknown field for the first one, or a limit without a bound, and this fails.
        assert!(Order::parse("bites").is_err() && Order::parse("bytes:down").is_err());
        assert_eq!(
            Order::parse("Source_Port:desc").unwrap(),
            Order { field: Field::SourcePort, descending: true }
        );
        assert_eq!((limit(None).unwrap(), limit(Some(5)).unwrap()), (LIMIT_DEFAULT, 5));
        assert!(limit(Some(LIMIT_MAX + 1)).is_err());
    }
}
