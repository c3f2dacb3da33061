//! Faults on purpose, one at a time: each is a mistake that a simulation must find. A build without the feature
//! `planted`, as every product is, has none: the question is answered at compile time.

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$fault),*];

            /// The stable name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$fault => $name,)*
                }
            }
        }
    };
}

faults! {
    /// Raft: a node says that something is written before it is.
    AckBeforeFsync = "ack-before-fsync",
    /// Raft: a node that starts again has forgotten whom it voted for.
    VoteForgotten = "vote-forgotten",
    /// Raft: a change of the members is in force once it is written, not when it is agreed.
    MembershipAtAppend = "membership-at-append",
    /// Sessions: what a peer tells of a session's facts takes the place of what is known.
    FactsReplaced = "facts-replaced",
    /// Sessions: what others told of ends is forgotten at once.
    TombstonesForgotten = "tombstones-forgotten",
    /// Sessions: whoever holds a copy ages it.
    AgedByReplicas = "aged-by-replicas",
    /// Sessions: an end by age is believed by who has a younger copy.
    ClaimsBelieved = "claims-believed",
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::OnceLock<Fault> = std::sync::OnceLock::new();

/// Plants a fault, for the life of this process.
///
/// # Errors
/// The name of the fault that is there already.
#[cfg(feature = "planted")]
pub fn plant(fault: Fault) -> Result<(), &'static str> {
    PLANTED.set(fault).map_err(|_| PLANTED.get().map_or("", |f| f.name()))
}

/// Whether that fault is planted.
#[inline(always)]
pub fn is_planted(fault: Fault) -> bool {
    #[cfg(feature = "planted")]
    return PLANTED.get() == Some(&fault);
    #[cfg(not(feature = "planted"))]
    {
        let _ = fault;
        false
    }
}
