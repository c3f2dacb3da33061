//! What a cluster agrees on: members, join tokens, policy revisions, ageing epochs.
//!
//! [`ClusterState`] is a function of the log: every node that applied the same entries holds the same
//! bytes. It reads no clock; times in it were put into the commands by the node that proposed them.

mod apply;
mod command;
mod ids;
mod outcome;
mod policy;
mod state;
mod token;

pub use command::{Command, Lease, Proposal};
pub use ids::{ClusterId, NodeId, RequestId, StoreId, TokenId};
pub use outcome::{Outcome, Refusal};
pub use policy::{PolicyLog, Revision, Source, Standing};
pub use state::{Ageing, AuditEntry, ClusterState, Founding, Member, Role, Token};
pub use token::{JoinToken, TokenError};

#[cfg(test)]
mod tests;
