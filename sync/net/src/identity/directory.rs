//! The directory with a node's identity.

use super::files::{self, FileError};
use super::{Identity, IdentityError, IdentityFile};
use crate::pki::{Ca, CaCertificate, Credentials, NodeCertificate, NodeKey, PkiError};
use crate::store::{OpenError, RaftStore};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tidegate_sync::cluster::{StoreId, TokenId};

/// Where a node's identity lies. See the module's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// An existing directory; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or others than its owner can use it.
    pub fn open(path: &Path) -> Result<Option<Self>, IdentityError> {
        let fault = |error| FileError::Io { what: "use the directory", path: path.to_owned(), error };
        let metadata = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(fault)?,
        };
        if !metadata.is_dir() {
            return Err(fault(io::ErrorKind::NotADirectory.into()).into());
        }
        files::check_private(path, &metadata)?;
        Ok(Some(Directory { path: path.to_owned() }))
    }

    /// A directory that is made if there is none, mode 0700; its parents keep what they are.
    ///
    /// # Errors
    /// As [`Directory::open`], or it cannot be made.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        let fault = |error| FileError::Io { what: "make the directory", path: path.to_owned(), error };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().unwrap_or(path);
                DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(fault)?;
                DirBuilder::new().mode(0o700).create(path).map_err(fault)?;
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fault(error).into()),
            _ => {}
        }
        Self::open(path)?.ok_or_else(|| fault(io::ErrorKind::NotFound.into()).into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the Raft store is.
    pub fn store_path(&self) -> PathBuf {
        self.path.join("raft.redb")
    }

    fn identity_path(&self) -> PathBuf {
        self.path.join("identity.json")
    }

    fn node_path(&self) -> PathBuf {
        self.path.join("node.pem")
    }

    fn ca_path(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    fn ca_key_path(&self) -> PathBuf {
        self.path.join("ca.key")
    }

    fn join_path(&self) -> PathBuf {
        self.path.join("join.json")
    }

    /// Who this node is; `None`: no member.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let path = self.identity_path();
        let Some(bytes) = files::read(&path, false)? else { return Ok(None) };
        let identity = serde_json::from_slice::<IdentityFile>(&bytes).map_err(|e| e.to_string());
        match identity.and_then(IdentityFile::read) {
            Ok(identity) => Ok(Some(identity)),
            Err(reason) => Err(IdentityError::Unreadable { path, reason }),
        }
    }

    /// Refuses a CA key that others may read, also where nothing is to be signed yet. None at all is fine.
    ///
    /// # Errors
    /// Its mode, or the file system's.
    pub fn check_ca_key(&self) -> Result<(), IdentityError> {
        let path = self.ca_key_path();
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(FileError::Io { what: "use the key", path, error }.into()),
            Ok(metadata) => Ok(files::check_private(&path, &metadata)?),
        }
    }

    /// Makes this node that member. To be written last.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), IdentityError> {
        let path = self.identity_path();
        let text = serde_json::to_vec_pretty(&IdentityFile::from(identity))
            .map_err(|e| IdentityError::Unreadable { path: path.clone(), reason: e.to_string() })?;
        Ok(files::write(&path, &[&text[..], b"\n"].concat(), 0o600)?)
    }

    /// Takes the identity away: what is left belongs to no member.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget_identity(&self) -> Result<(), IdentityError> {
        Ok(files::remove(&self.identity_path())?)
    }

    /// Writes the CA's certificate; on full members with its key (PEM).
    ///
    /// # Errors
    /// The file system's, or the key is not the certificate's.
    pub fn write_ca(&self, certificate: &CaCertificate, key_pem: Option<&str>) -> Result<(), IdentityError> {
        let path = self.ca_key_path();
        match key_pem {
            Some(pem) => {
                NodeKey::from_pem(pem)
                    .and_then(|key| Ca::new(certificate.clone(), key))
                    .map_err(|error| IdentityError::Pki { path: path.clone(), error })?;
                files::write(&path, pem.as_bytes(), 0o600)?;
            }
            None => files::remove(&path)?,
        }
        Ok(files::write(&self.ca_path(), certificate.pem().as_bytes(), 0o644)?)
    }

    /// The CA's certificate.
    ///
    /// # Errors
    /// It is missing or cannot be read.
    pub fn ca_certificate(&self) -> Result<CaCertificate, IdentityError> {
        let path = self.ca_path();
        CaCertificate::from_pem(&read_text(&path, false)?).map_err(|error| IdentityError::Pki { path, error })
    }

    /// The CA with its key.
    ///
    /// # Errors
    /// [`PkiError::NoCaKey`] without a key; else as [`Directory::ca_certificate`], or others can read the
    /// key.
    pub fn ca(&self) -> Result<Ca, IdentityError> {
        let certificate = self.ca_certificate()?;
        let path = self.ca_key_path();
        let pki = |error| IdentityError::Pki { path: path.clone(), error };
        match files::read(&path, true)? {
            None => Err(pki(PkiError::NoCaKey)),
            Some(_) => {
                let key = NodeKey::from_pem(&read_text(&path, true)?).map_err(pki)?;
                Ca::new(certificate, key).map_err(pki)
            }
        }
    }

    /// Replaces the node's certificate and key, both at once.
    ///
    /// # Errors
    /// The file system's; the old pair is still there then.
    pub fn write_certificate(
        &self,
        certificate: &NodeCertificate,
        key: &NodeKey,
    ) -> Result<(), IdentityError> {
        let text = certificate.pem() + &key.pem();
        Ok(files::write(&self.node_path(), text.as_bytes(), 0o600)?)
    }

    /// What this node shows to others.
    ///
    /// # Errors
    /// A file is missing, cannot be read, can be read by others, or belongs to another node.
    pub fn credentials(&self) -> Result<Credentials, IdentityError> {
        let ca = self.ca_certificate()?;
        let path = self.node_path();
        let text = read_text(&path, true)?;
        let pki = |error| IdentityError::Pki { path: path.clone(), error };
        let certificate = NodeCertificate::from_pem(&text).map_err(pki)?;
        let key = NodeKey::from_pem(&text).map_err(pki)?;
        if let Some(identity) = self.identity()? {
            let (found, wanted) =
                ((certificate.cluster(), certificate.node()), (identity.cluster, identity.node));
            if found != wanted {
                let name = |(cluster, node)| format!("node {node} of cluster {cluster}");
                return Err(IdentityError::Mixed { path, found: name(found), wanted: name(wanted) });
            }
        }
        Credentials::new(certificate, key, ca).map_err(pki)
    }

    /// Key and store id to join with. The same again for the same token, also after a restart, so that a
    /// node whose answer was lost is the one that was admitted.
    ///
    /// # Errors
    /// The file system's, or what an earlier attempt left cannot be read.
    pub fn begin_join(&self, token: TokenId) -> Result<PendingJoin, IdentityError> {
        let path = self.join_path();
        if let Some(bytes) = files::read(&path, true)? {
            let unreadable = |reason: String| IdentityError::Unreadable { path: path.clone(), reason };
            let file: JoinFile = serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
            if file.token == token.to_string() {
                let key = NodeKey::from_pem(&file.key)
                    .map_err(|error| IdentityError::Pki { path: path.clone(), error })?;
                let store = StoreId::parse(&file.store)
                    .ok_or_else(|| unreadable("`store` is no store id".to_owned()))?;
                return Ok(PendingJoin { key, store });
            }
        }
        let pki = |error| IdentityError::Pki { path: path.clone(), error };
        let pending = PendingJoin { key: NodeKey::generate().map_err(pki)?, store: StoreId(rand::random()) };
        let file =
            JoinFile { token: token.to_string(), store: pending.store.to_string(), key: pending.key.pem() };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|e| IdentityError::Unreadable { path: path.clone(), reason: e.to_string() })?;
        files::write(&path, &text, 0o600)?;
        Ok(pending)
    }

    /// Forgets what [`Directory::begin_join`] kept: the node is a member, or gave up.
    ///
    /// # Errors
    /// The file system's.
    pub fn end_join(&self) -> Result<(), IdentityError> {
        Ok(files::remove(&self.join_path())?)
    }
}

/// What a node joins with.
#[derive(Debug)]
pub struct PendingJoin {
    /// The key of its first certificate.
    pub key: NodeKey,
    /// The id of the store that it will create.
    pub store: StoreId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinFile {
    token: String,
    store: String,
    key: String,
}

/// A new key and certificate for the node of this directory, made with the CA's key here: also when every
/// certificate of the cluster has expired. The daemon must not run.
///
/// # Errors
/// The daemon runs, there is no identity or no CA key, or the file system's.
pub fn reissue(
    directory: &Directory,
    now_unix_s: u64,
    validity_s: u64,
) -> Result<NodeCertificate, IdentityError> {
    let Some(identity) = directory.identity()? else {
        return Err(IdentityError::Missing(directory.identity_path()));
    };
    let _locked = match RaftStore::lock_file(&directory.store_path()) {
        Err(OpenError::File { error, .. }) if error.kind() == io::ErrorKind::NotFound => None,
        lock => Some(lock?),
    };
    let ca = directory.ca()?;
    let issue = || {
        let key = NodeKey::generate()?;
        let csr = crate::pki::Csr::from_der(&key.csr(&identity.node_name)?)?;
        let certificate = ca.issue(&csr, identity.node, &identity.node_name, now_unix_s, validity_s)?;
        Ok((certificate, key))
    };
    let issued = issue().map_err(|error| IdentityError::Pki { path: directory.node_path(), error });
    let (certificate, key) = issued?;
    directory.write_certificate(&certificate, &key)?;
    Ok(certificate)
}

fn read_text(path: &Path, secret: bool) -> Result<String, IdentityError> {
    let bytes = files::read(path, secret)?.ok_or_else(|| IdentityError::Missing(path.to_owned()))?;
    String::from_utf8(bytes)
        .map_err(|_| IdentityError::Unreadable { path: path.to_owned(), reason: "it is no text".to_owned() })
}
