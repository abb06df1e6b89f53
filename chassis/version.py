"""The version of the chassis, apart from that of the service it carries."""

VERSION = "1.0.0"
