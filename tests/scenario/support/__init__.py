# SPDX-License-Identifier: Apache-2.0
"""What the scenario tests are written with.

pki.py       certificates, good and bad, made for the session
upstream.py  Upstream: a DNS-over-TLS server whose every byte a test controls, and which remembers
             everything it saw
zone.py      what an Upstream answers by itself, computed from the name asked
proxy.py     Proxy: the binary under test, its log, its metrics, and clients of it
authoritative.py  Nsd and Unbound: real servers
random_zone.py    what they serve: a zone with everything, made of a seed
difference.py     what they say directly and through the proxy, compared
bulk.py      thousands of questions at once
ports.py     ports that nobody else takes
waiting.py   eventually(): waiting for a condition instead of sleeping

A test reads like this:

    def test_F2_...(pki, upstream, start_proxy):
        upstream.on_query = lambda query: query.connection.reset()
        proxy = start_proxy(upstream)
        reply = proxy.query("name.test")
        assert reply.rcode() == dns.rcode.SERVFAIL
        upstream.wait_for(lambda: len(upstream.connections) == 2)
"""
