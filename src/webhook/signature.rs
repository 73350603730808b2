//! HMAC-SHA256, and comparing without telling by the time it takes where two values differ.
//!
//! Absent: header names, and how a forge writes a signature down.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The HMAC of some bytes, computed once and compared with as many claims as were sent.
#[derive(Clone)]
pub(super) struct Signature(Hmac<Sha256>);

impl Signature {
    /// Signs the concatenation of the parts.
    #[expect(clippy::expect_used, reason = "an HMAC takes a key of any length")]
    pub(super) fn new(key: &[u8], parts: &[&[u8]]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC takes any key");
        for part in parts {
            mac.update(part);
        }
        Self(mac)
    }

    /// Compares in constant time.
    pub(super) fn matches(&self, claim: &[u8]) -> bool {
        self.0.clone().verify_slice(claim).is_ok()
    }

    /// The 32 bytes, for those who sign.
    pub(super) fn into_bytes(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }
}

/// Compares two tokens in constant time. Their HMACs are what is compared, so that not even a length shows.
pub(super) fn same_token(sent: &[u8], expected: &[u8]) -> bool {
    let sent = Signature::new(TOKEN_PURPOSE, &[sent]).into_bytes();
    Signature::new(TOKEN_PURPOSE, &[expected]).matches(&sent)
}

/// Whether an HMAC-SHA1 is right: too weak to let anybody in, and good enough to tell a wrong secret from a lost header.
#[expect(clippy::expect_used, reason = "an HMAC takes a key of any length")]
pub(super) fn sha1_matches(key: &[u8], data: &[u8], claim: &[u8]) -> bool {
    Hmac::<Sha1>::new_from_slice(key).expect("an HMAC takes any key").chain_update(data).verify_slice(claim).is_ok()
}

/// SHA-256 in lower-case hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// No secret: it only turns tokens of any length into 32 bytes.
const TOKEN_PURPOSE: &[u8] = b"landfall: compare webhook tokens";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmacs_are_those_of_rfc_4231() {
        let table: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, data, expected) in table {
            let (front, back) = data.split_at(3);
            let signature = Signature::new(key, &[front, b"", back]);
            assert!(signature.matches(&hex::decode(expected).unwrap()), "{expected}");
            assert_eq!(hex::encode(signature.into_bytes()), expected);
        }
    }

    #[test]
    fn a_part_of_a_signature_is_none() {
        let signature = Signature::new(b"key", &[b"data"]);
        let whole = signature.clone().into_bytes();
        for length in 0..32 {
            assert!(!signature.matches(&whole[..length]), "{length} bytes");
        }
        assert!(!signature.matches(&[whole.as_slice(), b"\0"].concat()));
        assert!(signature.matches(&whole));
    }

    #[test]
    fn tokens_match_whole_or_not_at_all() {
        let table: [(&[u8], &[u8], bool); 7] = [
            (b"token", b"token", true),
            (b"token", b"Token", false),
            (b"token", b"token ", false),
            (b"token\0", b"token", false),
            (b"toke", b"token", false),
            (b"", b"token", false),
            (b"\xff\xfe", b"\xff\xfe", true),
        ];
        for (sent, expected, same) in table {
            assert_eq!(same_token(sent, expected), same, "{sent:?} {expected:?}");
        }
    }

    #[test]
    fn the_older_hmac_is_that_of_rfc_2202() {
        let right = hex::decode("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79").unwrap();
        assert!(sha1_matches(b"Jefe", b"what do ya want for nothing?", &right));
        assert!(!sha1_matches(b"Jefe", b"what do ya want for nothing?", &right[..19]));
        assert!(!sha1_matches(b"jefe", b"what do ya want for nothing?", &right));
    }

    #[test]
    fn the_digest_is_sha_256_in_hex() {
        assert_eq!(digest(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
