import pytest

from chassis.addresses import in_both_forms, unmapped


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:0207", "192.0.2.7"),
        ("0:0:0:0:0:ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::ffff:no", "::ffff:no"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_mapped_address_is_the_one_that_it_maps(address: str, plain: str):
    assert unmapped(address) == plain


@pytest.mark.parametrize(
    ("networks", "both"),
    [
        ("127.0.0.1", "127.0.0.1,::ffff:127.0.0.1"),
        ("10.0.0.0/8, ::1", "10.0.0.0/8,::1,::ffff:10.0.0.0/104"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1,127.0.0.1"),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104,10.0.0.0/8"),
        ("*", "*"),
        ("::/0", "::/0"),
        ("proxy.example", "proxy.example"),
    ],
)
def test_trusted_network_is_trusted_in_both_forms(networks: str, both: str):
    assert in_both_forms(networks) == both
