//! The receiving end of a peer's stream: bytes become items that may be trusted as far as a peer can be.
//!
//! Whatever is broken in form closes the link ([`InletError`]). Whatever is well formed and cannot be true is
//! refused by itself, counted by the reason for the doubt, and has no effect. What a peer may say *about
//! whose* sessions is judged by the engine, which knows who is alive.

mod dictionary;
mod judge;
#[cfg(test)]
mod tests;

pub use dictionary::{LEARNED_MAX, NameTable, PeerNames};

use super::message::{FrameError, QUESTIONS_MAX, WireItem, read_item, take};
use super::record::QuestionRecord;
use super::shard::Item;
use dictionary::Dictionary;
use judge::Judge;
use tidegate_dataplane::addr::Tuple;
use tidegate_dataplane::session::owner::Boot;
use tidegate_dataplane::time::Now;

/// What an inlet is made with.
#[derive(Clone, Copy, Debug)]
pub struct InletConfig {
    /// The boot at the other end.
    pub teller: Boot,
    /// This node.
    pub me: Boot,
    /// Number of the stream: the shard at the other end.
    pub stream: u16,
    /// Shards of this node.
    pub shards: u16,
    /// How long the other boot had been up when the link came up, in ms.
    pub uptime_ms: u64,
    /// When the link came up.
    pub up_at: Now,
    /// Records a second that this stream may bring; what is above is refused.
    pub records_per_s_max: u32,
}

impl InletConfig {
    /// More than any worker makes (a resync at full speed is about 2 million a second).
    pub const RECORDS_PER_S_MAX: u32 = 8_000_000;
}

/// About what a record takes: how much room a batch's items are given beforehand.
const RECORD_BYTES: usize = 96;

/// Why a record of a peer is not believed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Doubt {
    /// Addresses, ports or protocol that no forwarded packet has.
    Tuple,
    /// A zone, rule or application that the stream never named, or a name that no policy can have.
    Name,
    /// More names than this process can number.
    NamesFull,
    /// An age greater than the session's, or a time that no node has been up for.
    Age,
    /// A boot that began after the session, or another impossible identity.
    Identity,
    /// Facts that no TCP segment can leave behind, or TCP facts of another protocol.
    Facts,
    /// Packets and bytes that do not go together, or more than any link carries.
    Counters,
    /// An end for an unknown reason.
    Reason,
    /// More records a second than a worker makes.
    Flood,
}

impl Doubt {
    /// Every reason.
    pub const ALL: [Doubt; 9] = [
        Doubt::Tuple,
        Doubt::Name,
        Doubt::NamesFull,
        Doubt::Age,
        Doubt::Identity,
        Doubt::Facts,
        Doubt::Counters,
        Doubt::Reason,
        Doubt::Flood,
    ];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Doubt::Tuple => "tuple",
            Doubt::Name => "name",
            Doubt::NamesFull => "names_full",
            Doubt::Age => "age",
            Doubt::Identity => "identity",
            Doubt::Facts => "facts",
            Doubt::Counters => "counters",
            Doubt::Reason => "reason",
            Doubt::Flood => "flood",
        }
    }
}

/// Why a batch cannot be read: the link is closed.
#[derive(Debug, thiserror::Error)]
pub enum InletError {
    /// It is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A batch is missing, or came twice.
    #[error("batch {came} on stream {stream}, where {expected} was due")]
    Number {
        /// The stream.
        stream: u16,
        /// What came.
        came: u64,
        /// What was due.
        expected: u64,
    },
    /// An answer for a shard that this node does not have.
    #[error("an answer for shard {0}, which this node does not have")]
    Shard(u16),
    /// More questions at once than any node asks.
    #[error("{0} questions at once; at most {QUESTIONS_MAX} are asked")]
    Questions(usize),
    /// A name's kind or number is beyond what any node has.
    #[error("name {number} of kind {kind}, which no node has")]
    Name {
        /// Kind of the name.
        kind: u8,
        /// Its number.
        number: u32,
    },
}

/// Records of a batch by kind, believed or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Records {
    /// Copies of sessions.
    pub copies: u64,
    /// Ends.
    pub ends: u64,
    /// Questions.
    pub questions: u64,
    /// Names.
    pub names: u64,
}

/// A batch, read and judged.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Decoded {
    /// Its number: acknowledged when every shard with a part of it has applied that.
    pub number: u64,
    /// Each shard's part, by the shard's number; empty when there is none.
    pub shards: Vec<Vec<Item>>,
    /// What was in it.
    pub records: Records,
    /// What of it was refused, by the number of the [`Doubt`].
    pub refused: [u64; Doubt::ALL.len()],
    /// Whether names were put into the table: shards need the new table before their parts.
    pub learned: bool,
}

impl Decoded {
    /// Records that were refused, for any reason.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}

/// One stream of one link.
#[derive(Debug)]
pub struct Inlet {
    config: InletConfig,
    names: Dictionary,
    judge: Judge,
    /// Number that the next batch must have.
    next: u64,
    /// Records that may still come in this second, and when it began.
    allowed: (u32, Now),
}

impl Inlet {
    /// A stream on which nothing came yet.
    pub fn new(config: InletConfig) -> Self {
        Inlet {
            names: Dictionary::default(),
            judge: Judge::new(&config),
            next: 1,
            allowed: (config.records_per_s_max, config.up_at),
            config,
        }
    }

    /// Reads the body of a frame of kind [`super::message::Kind::Batch`]. `now` is this process's, the one that
    /// [`InletConfig::up_at`] is of; `shard_of` says which shard a tuple belongs to.
    ///
    /// # Errors
    /// When it is broken in form: the link must be closed, and nothing of the batch used.
    pub fn read(
        &mut self,
        body: &[u8],
        now: Now,
        names: &mut dyn NameTable,
        shard_of: &dyn Fn(&Tuple) -> u16,
    ) -> Result<Decoded, InletError> {
        let mut rest = body;
        let number = take(&mut rest)?;
        if number != self.next {
            return Err(InletError::Number { stream: self.config.stream, came: number, expected: self.next });
        }
        self.next += 1;
        if now.since(self.allowed.1) >= 1000 {
            self.allowed = (self.config.records_per_s_max, now);
        }
        self.judge.set_now(now);
        let shards = usize::from(self.config.shards);
        let part = rest.len() / RECORD_BYTES / shards.max(1) + 8;
        let parts = (0..shards).map(|_| Vec::with_capacity(part)).collect();
        let mut decoded = Decoded { number, shards: parts, ..Decoded::default() };
        while !rest.is_empty() {
            let item = read_item(&mut rest)?;
            self.item(item, &mut decoded, names, shard_of)?;
        }
        Ok(decoded)
    }

    fn item(
        &mut self,
        item: WireItem<'_>,
        decoded: &mut Decoded,
        names: &mut dyn NameTable,
        shard_of: &dyn Fn(&Tuple) -> u16,
    ) -> Result<(), InletError> {
        let judged = match item {
            WireItem::Name { kind, number, text } => {
                decoded.records.names += 1;
                let learned = self.names.learn(kind, number, text, names);
                decoded.learned |= learned.ok_or(InletError::Name { kind, number })?;
                return Ok(());
            }
            WireItem::ResyncBegin { number, view } => {
                to_all(decoded, &Item::ResyncBegin { number, view });
                return Ok(());
            }
            WireItem::ResyncEnd { number, view } => {
                to_all(decoded, &Item::ResyncEnd { number, view });
                return Ok(());
            }
            WireItem::Answered { shard, number, count } => {
                let part = decoded.shards.get_mut(usize::from(shard)).ok_or(InletError::Shard(shard))?;
                part.push(Item::Answered { number, count });
                return Ok(());
            }
            WireItem::Ask { number, questions } => {
                return self.questions(number, &questions, decoded, shard_of);
            }
            WireItem::Copy4(copy) => {
                decoded.records.copies += 1;
                self.admit().and_then(|()| self.judge.copy(judge::tuple4(&copy.tuple)?, &copy, &self.names))
            }
            WireItem::Copy6(copy) => {
                decoded.records.copies += 1;
                self.admit().and_then(|()| self.judge.copy(judge::tuple6(&copy.tuple)?, &copy, &self.names))
            }
            WireItem::End4(end) => {
                decoded.records.ends += 1;
                self.admit().and_then(|()| self.judge.end(judge::tuple4(&end.tuple)?, &end))
            }
            WireItem::End6(end) => {
                decoded.records.ends += 1;
                self.admit().and_then(|()| self.judge.end(judge::tuple6(&end.tuple)?, &end))
            }
        };
        match judged {
            Ok((tuple, item)) => push(decoded, shard_of(&tuple), item),
            Err(doubt) => decoded.refused[doubt as usize] += 1,
        }
        Ok(())
    }

    /// Takes one record off what may come in this second.
    fn admit(&mut self) -> Result<(), Doubt> {
        self.allowed.0 = self.allowed.0.checked_sub(1).ok_or(Doubt::Flood)?;
        Ok(())
    }

    fn questions(
        &mut self,
        number: u64,
        questions: &[QuestionRecord],
        decoded: &mut Decoded,
        shard_of: &dyn Fn(&Tuple) -> u16,
    ) -> Result<(), InletError> {
        if questions.len() > QUESTIONS_MAX {
            return Err(InletError::Questions(questions.len()));
        }
        decoded.records.questions += questions.len() as u64;
        let mut parts = vec![Vec::new(); decoded.shards.len()];
        for question in questions {
            match self.admit().and_then(|()| self.judge.question(question)) {
                Ok(question) => {
                    if let Some(part) = parts.get_mut(usize::from(shard_of(&question.tuple))) {
                        part.push(question);
                    }
                }
                Err(doubt) => decoded.refused[doubt as usize] += 1,
            }
        }
        for (shard, questions) in parts.into_iter().enumerate() {
            if !questions.is_empty() {
                push(decoded, shard as u16, Item::Ask { number, questions });
            }
        }
        Ok(())
    }
}

fn push(decoded: &mut Decoded, shard: u16, item: Item) {
    if let Some(part) = decoded.shards.get_mut(usize::from(shard)) {
        part.push(item);
    }
}

fn to_all(decoded: &mut Decoded, item: &Item) {
    decoded.shards.iter_mut().for_each(|part| part.push(item.clone()));
}
