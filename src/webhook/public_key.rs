//! Ed25519: what the holder of a private key has signed, anybody can check.
//!
//! Absent: private keys. Nothing here can sign.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};

/// The key of a sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The base64 of 32 bytes. A key of low order is none: for such a one anybody can make signatures.
    pub(super) fn of_base64(text: &[u8]) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let key = VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// Whether the holder of the key has signed the concatenation of these parts. They are hashed one after the other: a body
    /// is not copied only to have something behind it.
    pub(super) fn has_signed(&self, parts: &[&[u8]], claim: &[u8]) -> bool {
        let Ok(claim) = Signature::from_slice(claim) else { return false };
        let Ok(mut verifier) = self.0.verify_stream(&claim) else { return false };
        for part in parts {
            verifier.update(part);
        }
        verifier.finalize_and_verify().is_ok()
    }
}

/// How long a signature is.
pub(super) const SIGNATURE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hex_digits: &str) -> Option<PublicKey> {
        PublicKey::of_base64(STANDARD.encode(hex::decode(hex_digits).unwrap()).as_bytes())
    }

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        let table = [
            (
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (public, message, signature) in table {
            let (key, message, signature) =
                (key(public).unwrap(), hex::decode(message).unwrap(), hex::decode(signature).unwrap());
            assert!(key.has_signed(&[&message], &signature));
            let (front, back) = message.split_at(message.len() / 2);
            assert!(key.has_signed(&[front, b"", back], &signature));
            assert!(!key.has_signed(&[&message, b"x"], &signature));
            for (index, bit) in (0..64).flat_map(|index| (0..8).map(move |bit| (index, bit))) {
                let mut changed = signature.clone();
                changed[index] ^= 1 << bit;
                assert!(!key.has_signed(&[&message], &changed), "bit {bit} of byte {index}");
            }
            for length in [0, 32, 63] {
                assert!(!key.has_signed(&[&message], &signature[..length]), "{length} bytes");
            }
            assert!(!key.has_signed(&[&message], &[signature.as_slice(), b"\0"].concat()));
        }
    }

    /// The same signature with the order of the group added to its second half: equal for whoever does not look.
    #[test]
    fn a_second_form_of_a_signature_is_none() {
        let key = key("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
        let mut signature = hex::decode("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b").unwrap();
        assert!(key.has_signed(&[], &signature));
        let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
        let mut carry = 0_u16;
        for (byte, more) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(more) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(!key.has_signed(&[], &signature));
    }

    #[test]
    fn a_key_that_anybody_can_sign_for_is_none() {
        let table = [
            ("0100000000000000000000000000000000000000000000000000000000000000", "the neutral element"),
            ("0000000000000000000000000000000000000000000000000000000000000000", "order 4"),
            ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", "order 8"),
            ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "order 2"),
            ("0200000000000000000000000000000000000000000000000000000000000000", "not on the curve"),
            ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f70751", "31 bytes"),
            ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a00", "33 bytes"),
        ];
        for (digits, what) in table {
            assert!(key(digits).is_none(), "{what}");
        }
        assert!(PublicKey::of_base64(b"uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=").is_some());
        for text in
            ["", "*", "uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4", "uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=\n"]
        {
            assert!(PublicKey::of_base64(text.as_bytes()).is_none(), "{text:?}");
        }
    }
}
