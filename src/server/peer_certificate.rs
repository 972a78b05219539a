//! The names in the certificate of a client, and when it ends.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::certificate_validity::Validity;
use crate::edge::PeerCertificate;

/// The subject alternative names (URIs and DNS names) and the end of a certificate that the handshake has verified. `None`
/// if it cannot be parsed, so that the client counts as one without a certificate.
pub(super) fn peer_certificate(der: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let certificate = EndEntityCert::try_from(der).ok()?;
    let names = certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(Into::into).collect();
    Some(PeerCertificate { names, until: Validity::of(der)?.until })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;
    use crate::window::Timestamp;

    #[test]
    fn names_and_end_are_those_of_the_certificate() {
        let mut params = CertificateParams::new(vec!["bi.internal".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://example.org/bi".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 1].into()));
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let PeerCertificate { names, until } = peer_certificate(certificate.der()).unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["spiffe://example.org/bi", "bi.internal"]);
        assert_eq!(until, Timestamp::from_seconds(1_893_456_000));
        assert!(peer_certificate(&CertificateDer::from(&b"no certificate"[..])).is_none());
    }
}
