//! The names in the certificate of a client.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::edge::PeerCertificate;

/// The subject alternative names of a certificate that the handshake has verified: URIs and DNS names. No names, if it
/// has none or cannot be parsed.
pub(super) fn peer_certificate(certificate: &CertificateDer<'_>) -> PeerCertificate {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return PeerCertificate::default() };
    let names = certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(Into::into).collect();
    PeerCertificate { names }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_are_the_uris_and_dns_names_of_the_certificate() {
        let mut params = CertificateParams::new(vec!["bi.internal".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://example.org/bi".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 1].into()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names: Vec<_> = peer_certificate(certificate.der()).names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["spiffe://example.org/bi", "bi.internal"]);
        let bytes = CertificateDer::from(&b"no certificate"[..]);
        assert!(peer_certificate(&bytes).names.is_empty());
    }
}
