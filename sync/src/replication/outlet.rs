//! The sending end of a worker's stream: items become batches, names become numbers.

use super::message::{BODY_BYTES_MAX, ENVELOPE_BYTES, Kind, NAME_BYTES_MAX, NameKind, WireItem, envelope};
use super::record::{CopyRecord, EndRecord, Head, QuestionRecord, TupleRecord};
use tidegate_dataplane::addr::{Addr, Tuple};
use tidegate_dataplane::engine::Question;
use tidegate_dataplane::names::Names;
use tidegate_dataplane::session::copy::{EndNote, SessionCopy};

/// The batch that is being filled, its number, and the names that the stream's other end knows. One for each
/// stream of each link; it begins anew with the link.
#[derive(Debug)]
pub struct Outlet {
    frame: Vec<u8>,
    number: u64,
    /// Bytes that a batch is expected to take.
    room: usize,
    /// By [`NameKind`], a bit for each number of this process.
    told: [Vec<u64>; NameKind::ALL.len()],
}

/// Bytes of a frame before its first item: envelope and the batch's number.
const HEAD_BYTES: usize = ENVELOPE_BYTES + 8;
/// A batch is never filled beyond this, so that one more item with all of its names always fits a frame.
pub(super) const FULL_BYTES: usize = BODY_BYTES_MAX - 16 * 1024;

impl Outlet {
    /// A stream on which nothing was said yet, whose batches take about that many bytes.
    pub fn new(room: usize) -> Self {
        Outlet { frame: Vec::new(), number: 0, room: room.min(FULL_BYTES), told: Default::default() }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// A session.
    pub fn copy(&mut self, copy: &SessionCopy, names: &Names) {
        let birth = &copy.birth;
        for zone in birth.zones {
            self.name(NameKind::Zone, u32::from(zone.0), |n| n.zone_name(zone), names);
        }
        self.name(NameKind::Rule, birth.rule.0, |n| n.rule_name(birth.rule), names);
        let application = birth.application;
        self.name(
            NameKind::Application,
            u32::from(application.0),
            |n| n.application_name(application),
            names,
        );
        self.item(&match v4(&birth.tuple) {
            Some(tuple) => WireItem::Copy4(copy_record(copy, tuple)),
            None => WireItem::Copy6(copy_record(copy, v6(&birth.tuple))),
        });
    }

    /// An end.
    pub fn end(&mut self, end: &EndNote) {
        self.item(&match v4(&end.tuple) {
            Some(tuple) => WireItem::End4(end_record(end, tuple)),
            None => WireItem::End6(end_record(end, v6(&end.tuple))),
        });
    }

    /// A resync begins.
    pub fn resync_begin(&mut self, number: u64, view: u64) {
        self.item(&WireItem::ResyncBegin { number, view });
    }

    /// A resync ends.
    pub fn resync_end(&mut self, number: u64, view: u64) {
        self.item(&WireItem::ResyncEnd { number, view });
    }

    /// Questions, at most [`super::message::QUESTIONS_MAX`].
    pub fn ask(&mut self, number: u64, questions: &[Question]) {
        let questions = questions
            .iter()
            .map(|q| QuestionRecord { id: q.id.into(), tuple: v6(&q.tuple), age_ms: q.age_ms.into() })
            .collect();
        self.item(&WireItem::Ask { number, questions });
    }

    /// Questions are answered.
    pub fn answered(&mut self, shard: u16, number: u64, count: u32) {
        self.item(&WireItem::Answered { shard, number, count });
    }

    /// The batch as a frame, and its number.
    pub fn finish(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.frame.is_empty() {
            return None;
        }
        let mut frame = std::mem::take(&mut self.frame);
        let head = envelope(Kind::Batch, frame.len() - ENVELOPE_BYTES);
        frame[..ENVELOPE_BYTES].copy_from_slice(&head);
        Some((self.number, frame))
    }

    /// Tells a name before its first use.
    fn name(&mut self, kind: NameKind, number: u32, name: impl FnOnce(&Names) -> &str, names: &Names) {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        let told = &mut self.told[kind as usize];
        if told.get(word).is_some_and(|bits| bits & bit != 0) {
            return;
        }
        if told.len() <= word {
            told.resize(word + 1, 0);
        }
        told[word] |= bit;
        let text = name(names);
        let end = (0..=text.len().min(NAME_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
        self.item(&WireItem::Name { kind: kind as u8, number, text: &text[..end.unwrap_or(0)] });
    }

    fn item(&mut self, item: &WireItem<'_>) {
        if self.frame.is_empty() {
            self.number += 1;
            self.frame.reserve(self.room + 512);
            self.frame.resize(ENVELOPE_BYTES, 0);
            self.frame.extend_from_slice(&self.number.to_le_bytes());
            debug_assert_eq!(self.frame.len(), HEAD_BYTES);
        }
        item.write(&mut self.frame);
    }
}

fn v4(tuple: &Tuple) -> Option<TupleRecord<[u8; 4]>> {
    Some(tuple_record(tuple, tuple.src.to_v4()?, tuple.dst.to_v4()?))
}

fn v6(tuple: &Tuple) -> TupleRecord<[u8; 16]> {
    let bytes = |addr: Addr| addr.0.to_be_bytes();
    tuple_record(tuple, bytes(tuple.src), bytes(tuple.dst))
}

fn tuple_record<A>(tuple: &Tuple, src: A, dst: A) -> TupleRecord<A> {
    let Tuple { src_port, dst_port, protocol, .. } = *tuple;
    TupleRecord { src, dst, src_port: src_port.into(), dst_port: dst_port.into(), protocol }
}

fn copy_record<A>(copy: &SessionCopy, tuple: TupleRecord<A>) -> CopyRecord<A> {
    let SessionCopy { birth, facts, sighted, age_ms, created_age_ms, packets, bytes } = *copy;
    let head = Head {
        id: birth.id.into(),
        zones: birth.zones.map(|zone| zone.0.into()),
        rule: birth.rule.0.into(),
        application: birth.application.0.into(),
        revision: birth.revision.into(),
        age_ms: age_ms.into(),
        created_age_ms: created_age_ms.into(),
        bits: [0; 2],
        flags: 0,
    };
    let counts = [packets[0], packets[1], bytes[0], bytes[1]];
    CopyRecord { head, tuple, facts, sighted, supersedes: birth.supersedes, counts }
}

fn end_record<A>(end: &EndNote, tuple: TupleRecord<A>) -> EndRecord<A> {
    let EndNote { id, reason, age_ms, bits, .. } = *end;
    EndRecord { id: id.into(), tuple, reason: reason as u8, age_ms: age_ms.into(), bits }
}
