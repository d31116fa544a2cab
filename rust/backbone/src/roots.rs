//! Whom to trust behind `rediss://`: those of a PEM bundle, or those of the system.
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::api::Error;

/// What makes a TLS stream of a socket. Reads files, so it blocks.
pub(crate) fn connector(pem: Option<&[u8]>) -> Result<TlsConnector, Error> {
    let mut store = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| Error::Roots(format!("no PEM: {error:?}")))?;
                store.add(certificate).map_err(|error| Error::Roots(error.to_string()))?;
            }
        }
        // One certificate that is broken is no reason to trust none.
        None => drop(store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if store.is_empty() {
        return Err(Error::Roots("there is none, so no server can be trusted".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has suites of TLS 1.2 and 1.3")
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
