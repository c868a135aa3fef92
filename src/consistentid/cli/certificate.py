"""`consistentid certificate`."""

from pathlib import Path


def certificate(name: str, /, *, folder: Path | None = None) -> int:
    """Make a certificate of your own that signs the pictures you save from now on.

    Nobody vouches for it: it proves that a file is as you signed it, and to those who have your certificate.pem that it
    was signed with your key, but not to others who you are. For that, have an authority on the C2PA trust list issue
    one, and name it with --certificate and --certificate-key, in trust.toml, or in CONSISTENTID_CERTIFICATE and
    CONSISTENTID_CERTIFICATE_KEY.

    Args:
        name: what the certificate calls you; it is written into every picture that you save.
        folder: where certificate.pem and key.pem go. Default: the configuration's, where they are found again.
    """
    from consistentid.trust.certificates import make_signer, save_signer
    from consistentid.trust.safeguards import config_folder

    path = save_signer(make_signer(name), folder or config_folder())
    print(f"{path}: a certificate for {name}, signed by nobody else; keep {path.with_name('key.pem')} to yourself")
    return 0
