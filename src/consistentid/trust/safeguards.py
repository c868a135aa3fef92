"""One place to say what may be made and how files are marked: a configuration file, options, or Python."""

import os
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consistentid.errors import InvalidSettings
from consistentid.trust.audit import AuditLog
from consistentid.trust.certificates import CERTIFICATE, KEY, Signer, load_signer
from consistentid.trust.credentials import check_signer
from consistentid.trust.marking import Marking
from consistentid.trust.policy import AllOf, Policy, PromptPolicy, named_policy, read_words

FILE = "trust.toml"
FOLDER_VARIABLE = "CONSISTENTID_CONFIG"
_FROM_ENVIRONMENT = {"certificate": "CONSISTENTID_CERTIFICATE", "certificate_key": "CONSISTENTID_CERTIFICATE_KEY"}


class Safeguards(BaseModel):
    """What may be made, and how files say what they are.

    Attributes:
        policy: a policy of your own besides the built-in one, as package.module:attribute.
        blocked: file of words and names that prompts may not hold, one a line, * for any ending.
        refuse_sexualised: refuse sexualised prompts about adults too.
        require_consent: refuse what is not asked for with consent stated.
        safety_checker: auto (the model's own, else one that was fetched), none, or a folder or hub id.
        nudity_gate: withhold pictures that score so high as nudity, from 0 to 1 (0.8 is usual); needs the extra safety.
        sign: sign saved files (C2PA).
        certificate: PEM file of the certificate that signs, with those above it; without one, the certificate that
            `consistentid certificate` made, else one that lasts as long as the process.
        certificate_key: PEM file of its key.
        watermark: add an invisible mark to the pixels of saved pictures.
        private: keep prompt, caption and photos out of saved files.
        audit_log: file that gets a line for everything saved, refused or withheld.
        audit_personal: also write prompts and file names there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str | None = None
    blocked: Path | None = None
    refuse_sexualised: bool = True
    require_consent: bool = False
    safety_checker: str = "auto"
    nudity_gate: float | None = Field(default=None, gt=0, le=1)
    sign: bool = True
    certificate: Path | None = None
    certificate_key: Path | None = None
    watermark: bool = False
    private: bool = False
    audit_log: Path | None = None
    audit_personal: bool = False

    @classmethod
    def configured(cls, **given: Any) -> Self:
        """The user's configuration: `trust.toml`, over it the environment, over that what is given.

        Raises:
            InvalidSettings: the file is malformed, or holds something else.
        """
        path = config_folder() / FILE
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.is_file() else {}
            named = {key: os.environ[name] for key, name in _FROM_ENVIRONMENT.items() if os.environ.get(name)}
            return cls.model_validate({**values, **named, **given})
        except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidSettings(f"{path} cannot be read ({error}); it is TOML") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise InvalidSettings(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None

    def chosen_policy(self) -> Policy:
        """The built-in policy, with one of the user's own if there is one.

        Raises:
            InvalidSettings: a file or a policy that is named cannot be used.
        """
        built_in = PromptPolicy(
            refuse_sexualised=self.refuse_sexualised,
            blocked=() if self.blocked is None else read_words(self.blocked),
            require_consent=self.require_consent,
        )
        return built_in if self.policy is None else AllOf((built_in, named_policy(self.policy)))

    def marking(self) -> Marking:
        """How saved pictures are marked.

        Raises:
            InvalidSettings: the certificate or the audit log cannot be used.
        """
        return Marking(
            sign=self.sign,
            signer=self._signer() if self.sign else None,
            watermark=self.watermark,
            private=self.private,
            audit=None if self.audit_log is None else AuditLog(self.audit_log.expanduser(), self.audit_personal),
        )

    def _signer(self) -> Signer | None:
        own = config_folder() / CERTIFICATE
        if self.certificate is None and self.certificate_key is None:
            return load_signer(own, own.with_name(KEY)) if own.is_file() else None
        if self.certificate is None or self.certificate_key is None:
            raise InvalidSettings("a certificate signs with its key; give both, --certificate and --certificate-key")
        signer = load_signer(self.certificate, self.certificate_key)
        check_signer(signer)
        return signer


def config_folder() -> Path:
    """`$CONSISTENTID_CONFIG`, else `consistentid` in `$XDG_CONFIG_HOME` or in `~/.config`."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "consistentid"
