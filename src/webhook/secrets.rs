//! Which secrets a forge can be given. What could prove nothing is a mistake in the configuration, not a refusal later.

use super::{azure, public_key::PublicKey, sourcehut, standard, standard_signature};
use crate::domain::forge::Forge;
use crate::domain::secret::{Secret, SecretError};

/// Why a value is no webhook secret for a forge. Never shows the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretUnfit {
    /// Too weak for any forge.
    #[error(transparent)]
    Weak(#[from] SecretError),
    /// The user's name makes it long, but anybody knows that.
    #[error("has a weak password behind the user: it {0}")]
    WeakPassword(SecretError),
    /// It says that it is a signing secret.
    #[error("begins with `whsec_`, but is not that and the base64 of 16 bytes or more")]
    SigningSecret,
    /// It can sign nothing that is checked here.
    #[error(
        "is no secret of Standard Webhooks: it is `whsec_` and the base64 of 16 bytes or more, or a public key (`whpk_…`)\n\
             help: echo \"whsec_$(openssl rand -base64 32)\""
    )]
    NotStandard,
    /// Not what the instance publishes.
    #[error(
        "is no public key of a SourceHut instance: the base64 of 32 bytes\n\
             help: leave `secret` out for git.sr.ht itself"
    )]
    NotPublicKey,
}

/// Refuses what would let anyone in, or nobody.
pub fn check_secret(forge: Forge, secret: &Secret) -> Result<(), SecretUnfit> {
    match forge {
        Forge::Github | Forge::Gitea | Forge::Forgejo | Forge::Gogs | Forge::Bitbucket | Forge::BitbucketDc => {
            secret.check_strength()?;
        }
        Forge::Gitlab => {
            secret.check_strength()?;
            if standard_signature::is_signing_secret(secret) && standard_signature::SigningKey::of(secret).is_none() {
                return Err(SecretUnfit::SigningSecret);
            }
        }
        Forge::Azure => {
            secret.check_strength()?;
            let password = Secret::new(azure::password(secret).to_vec());
            password.check_strength().map_err(SecretUnfit::WeakPassword)?;
        }
        Forge::Sourcehut => drop::<PublicKey>(sourcehut::public_key(secret).ok_or(SecretUnfit::NotPublicKey)?),
        Forge::Standard => match standard::Key::of(secret).ok_or(SecretUnfit::NotStandard)? {
            standard::Key::Shared(_) => secret.check_strength()?,
            standard::Key::Public(_) => {}
        },
    }
    Ok(())
}

/// What proves a forge's deliveries where nothing is configured: only of SourceHut is it known to everybody.
pub fn default_secret(forge: Forge) -> Option<Secret> {
    (forge == Forge::Sourcehut).then(|| Secret::new(sourcehut::SR_HT_KEY.into()))
}

/// Whether a webhook secret is none: with a public key nothing can be forged, so that several repositories may have it.
pub fn is_public(forge: Forge, secret: &Secret) -> bool {
    match forge {
        Forge::Sourcehut => true,
        Forge::Standard => standard_signature::is_public_key(secret),
        Forge::Github | Forge::Gitlab | Forge::Gitea | Forge::Forgejo | Forge::Gogs => false,
        Forge::Bitbucket | Forge::BitbucketDc | Forge::Azure => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=";
    const WHPK: &str = "whpk_uX7KWyyDNMaBma4aVbJ/cbUQpdjqczuCyK/HxzV/u+4=";

    #[test]
    fn a_secret_that_proves_nothing_is_refused_for_its_forge() {
        let (plain, short) = ("5f2b8c1d9e3a7f60", SecretError::Short(5));
        let table = [
            (Forge::Github, plain, Ok(())),
            (Forge::Github, WHSEC, Ok(())),
            (Forge::Github, "short", Err(SecretUnfit::Weak(short))),
            (Forge::Gogs, "short", Err(SecretUnfit::Weak(short))),
            (Forge::Bitbucket, "short", Err(SecretUnfit::Weak(short))),
            (Forge::BitbucketDc, "", Err(SecretUnfit::Weak(SecretError::Empty))),
            (Forge::Gitlab, plain, Ok(())),
            (Forge::Gitlab, WHSEC, Ok(())),
            (Forge::Gitlab, "whsec_*****************", Err(SecretUnfit::SigningSecret)),
            (Forge::Azure, plain, Ok(())),
            (Forge::Azure, "landfall:5f2b8c1d9e3a7f60", Ok(())),
            (Forge::Azure, "a-long-user-name:short", Err(SecretUnfit::WeakPassword(short))),
            (Forge::Azure, "a-long-user-name:", Err(SecretUnfit::WeakPassword(SecretError::Empty))),
            (Forge::Azure, "short", Err(SecretUnfit::Weak(short))),
            (Forge::Sourcehut, sourcehut::SR_HT_KEY, Ok(())),
            (Forge::Sourcehut, plain, Err(SecretUnfit::NotPublicKey)),
            (Forge::Sourcehut, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", Err(SecretUnfit::NotPublicKey)),
            (Forge::Standard, WHSEC, Ok(())),
            (Forge::Standard, WHPK, Ok(())),
            (Forge::Standard, plain, Err(SecretUnfit::NotStandard)),
            (Forge::Standard, "whsec_5f2b8c1d9e3a7f60", Err(SecretUnfit::NotStandard)),
            (Forge::Standard, "whpk_5f2b8c1d9e3a7f60", Err(SecretUnfit::NotStandard)),
            (Forge::Standard, "Whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDazkIxYDE5xg=", Err(SecretUnfit::NotStandard)),
        ];
        for (forge, text, expected) in table {
            assert_eq!(check_secret(forge, &Secret::new(text.into())), expected, "{forge} {text}");
        }
    }

    #[test]
    fn only_a_public_key_may_be_known() {
        for forge in Forge::ALL {
            let default = default_secret(forge);
            assert_eq!(default.is_some(), forge == Forge::Sourcehut, "{forge}");
            if let Some(key) = &default {
                assert_eq!(check_secret(forge, key), Ok(()));
                assert!(is_public(forge, key));
            }
            assert!(!is_public(forge, &Secret::new(WHSEC.into())) || forge == Forge::Sourcehut, "{forge}");
            assert_eq!(
                is_public(forge, &Secret::new(WHPK.into())),
                matches!(forge, Forge::Sourcehut | Forge::Standard)
            );
        }
    }
}
