//! Whom to trust behind `https` and `wss`: those of a PEM bundle, or those of the system.
use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::{ClientConfig, Error as TlsError, RootCertStore, crypto};

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// What is no PEM.
    #[error("is no PEM: {0}")]
    Pem(String),
    /// A certificate that cannot be one of a root.
    #[error("holds certificate {number}, which cannot be used: {source}")]
    Certificate {
        /// Which, from 1.
        number: usize,
        /// Why.
        source: TlsError,
    },
    /// Nothing between `BEGIN CERTIFICATE` and `END CERTIFICATE`.
    #[error("holds no certificate")]
    Empty,
}

/// Certificates of authorities, ready to check servers by. Cheap to clone.
#[derive(Clone)]
pub struct Roots(Arc<ClientConfig>);

impl Roots {
    /// Those of a PEM bundle, and no others; what is no certificate is passed over.
    ///
    /// # Errors
    /// [`RootsError`]: it holds none, or one that is broken, as a server may need just that one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let certificate = certificate.map_err(|error| RootsError::Pem(told(&error)))?;
            store.add(certificate).map_err(|source| RootsError::Certificate { number: index + 1, source })?;
        }
        Self::of(store)
    }

    /// Those of the system; reads files, so it blocks.
    ///
    /// # Errors
    /// [`RootsError::Empty`].
    pub(crate) fn of_system() -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        // One certificate that is broken is no reason to trust none.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::of(store)
    }

    fn of(store: RootCertStore) -> Result<Self, RootsError> {
        if store.is_empty() {
            return Err(RootsError::Empty);
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has suites of TLS 1.2 and 1.3")
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// What makes a TLS stream of a socket.
    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.0))
    }
}

/// As a reader of the file understands it: the library shows a marker's bytes as numbers.
fn told(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section has no proper begin".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Roots(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pem: &[u8]) -> String {
        Roots::from_pem(pem).expect_err("nobody is to be trusted").to_string()
    }

    #[test]
    fn a_bundle_holds_certificates_and_each_is_good() {
        let one = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (first, second) = (one(), one());
        let bundle = format!("# ours\n{}{}{}", first.cert.pem(), first.signing_key.serialize_pem(), second.cert.pem());
        assert!(Roots::from_pem(bundle.as_bytes()).is_ok());
        assert_eq!(refused(b""), "holds no certificate");
        assert_eq!(refused(b"no PEM at all\n"), "holds no certificate");
        assert_eq!(refused(first.signing_key.serialize_pem().as_bytes()), "holds no certificate");
        assert!(refused(&bundle.as_bytes()[..100]).ends_with("is no PEM: a section has no end"), "cut short");
        let broken = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", first.cert.pem());
        assert!(refused(broken.as_bytes()).starts_with("holds certificate 2, which cannot be used: "));
    }
}
