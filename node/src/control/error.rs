//! A request's failure, as the client gets it.

use crate::api::ErrorBody;
use crate::daemon::cluster::FormError;
use crate::daemon::policy::LoadError;
use crate::diagnostic::Diagnostic;
use crate::exit::Exit;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidegate_sync::cluster::Refusal;
use tidegate_sync_net::cluster::{OpenError, ProposeError, ReadError};

/// What went wrong.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    fn new(status: StatusCode, exit: Exit, message: impl Into<String>) -> Self {
        ApiError { status, body: ErrorBody { exit, message: message.into(), diagnostics: Vec::new() } }
    }

    /// The request makes no sense: exit code 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, Exit::Usage, message)
    }

    /// What it asks for does not exist: exit code 1.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, Exit::Error, message)
    }

    /// Something that should work does not: exit code 5.
    pub(super) fn degraded(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Exit::Degraded, message)
    }

    /// It cannot be done as things are: exit code 1.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::CONFLICT, Exit::Error, message)
    }

    /// No quorum, or nobody answered: exit code 3.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Exit::Unreachable, message)
    }

    /// A safety gate says no: exit code 4.
    pub(super) fn gate(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::CONFLICT, Exit::Refused, message)
    }

    /// The same with the findings in a file.
    #[must_use]
    pub(super) fn with(mut self, findings: Vec<Diagnostic>) -> Self {
        self.body.diagnostics = findings;
        self
    }

    /// The caller may not: exit code 1.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, Exit::Error, message)
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.body.message)
    }
}

impl From<LoadError> for ApiError {
    fn from(e: LoadError) -> Self {
        let message = e.to_string();
        match e {
            LoadError::Invalid { findings, .. } => ApiError::usage(message).with(findings),
            LoadError::Agreed(_) => ApiError::conflict(message),
            LoadError::NoFile | LoadError::Read { .. } | LoadError::Compile { .. } => {
                ApiError::usage(message)
            }
        }
    }
}

impl From<FormError> for ApiError {
    fn from(e: FormError) -> Self {
        let message = e.to_string();
        match e {
            FormError::Token(_) | FormError::Role { .. } | FormError::Open(OpenError::Invalid(_)) => {
                ApiError::usage(message)
            }
            FormError::Open(OpenError::Join { .. }) => ApiError::unreachable(message),
            FormError::HasQuorum(_) => ApiError::gate(message),
            _ => ApiError::conflict(message),
        }
    }
}

impl From<ProposeError> for ApiError {
    fn from(e: ProposeError) -> Self {
        let message = e.to_string();
        match e {
            ProposeError::NoQuorum(_) | ProposeError::OutcomeUnknown { .. } => ApiError::unreachable(message),
            ProposeError::Invalid(_) | ProposeError::Standing(_) => ApiError::conflict(message),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::NoQuorum(why) => ApiError::unreachable(format!(
                "no quorum: {why}; nothing was changed, and forwarding goes on under the last agreed policy"
            )),
            ReadError::Standing(standing) => ApiError::conflict(standing.to_string()),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        ApiError::conflict(refusal.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
