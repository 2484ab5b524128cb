"""An S3 server over a folder, from s3proxy: signatures, multipart, ranges, presigned URLs."""

from __future__ import annotations

from pathlib import Path

from infra.local.credentials import Credentials
from infra.local.downloads import Report, class_path
from infra.local.part import Command
from infra.local.parts.java import java
from infra.local.ports import HOST, Ports
from infra.local.probes import http_status

LOGGING = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="info"><appender-ref ref="out"/></root>
</configuration>
"""


class S3Server:
    """A real S3 API with objects in `<home>/data/s3`; its bucket exists from the start."""

    name = "s3"
    bucket = "antiphon"

    def __init__(self, home: Path, downloads: Path) -> None:
        self.home = home
        self.port: int | None = None
        self._downloads = downloads
        self._ports = Ports(home)
        self._credentials = Credentials.of(home)

    @property
    def endpoint(self) -> str:
        """Base URL; valid after `prepare`."""
        return f"http://{HOST}:{self.port}"

    def environment(self) -> dict[str, str]:
        """S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY and S3_BUCKET."""
        return {
            "S3_ENDPOINT": self.endpoint,
            "S3_ACCESS_KEY": self._credentials.s3_access_key,
            "S3_SECRET_KEY": self._credentials.s3_secret_key,
            "S3_BUCKET": self.bucket,
        }

    async def prepare(self, report: Report) -> Command:
        """Fetch s3proxy, create the bucket's folder and write the configuration."""
        path = await class_path("s3proxy", self._downloads, report)
        self.port = self._ports.claim("s3")
        data = self.home / "data" / "s3"
        (data / self.bucket).mkdir(parents=True, exist_ok=True)
        settings = {
            "s3proxy.endpoint": self.endpoint,
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": self._credentials.s3_access_key,
            "s3proxy.credential": self._credentials.s3_secret_key,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.identity": "local",
            "jclouds.credential": "local",
            "jclouds.filesystem.basedir": data,
        }
        config = self.home / "config" / "s3proxy.properties"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.touch(mode=0o600)
        lines = (f"{key}={value}\n" for key, value in settings.items())
        config.write_text("".join(lines), encoding="utf-8")
        logging = config.with_name("s3proxy-logback.xml")
        logging.write_text(LOGGING, encoding="utf-8")
        options = ("-Xmx256m", "-XX:+UseSerialGC", f"-Dlogback.configurationFile={logging}")
        program = java(path, "org.gaul.s3proxy.Main", *options)
        return Command(argv=(*program, "--properties", str(config)), stop_timeout_s=5.0)

    async def is_ready(self) -> bool:
        """Whether it answers HTTP; a refusal for want of a signature counts."""
        return await http_status(self.port, "/") is not None
