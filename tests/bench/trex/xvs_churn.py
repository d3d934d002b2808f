"""Short TCP connections to one virtual service: connect, one request, one answer, close.

    start -f xvs_churn.py -m 100000 -d 120                          # ASTF; 100,000 connections a second

What it shows: connections a second, each with its beginning and its end: the scheduler, the insertion, TCP's states
and the expiry. By NAT a connection is some 8 to 10 packets through the director, both directions counted, with the
default sizes: 3 to open, 2 or 3 for request and answer, 3 or 4 to close.

Connections stay in the director's table after their end (TIME_WAIT 120 s): at R a second it needs room for 120 x R, or
shorter times. See docs/benchmarking.md.
"""

from trex.astf.api import ASTFProfile, ASTFProgram, ASTFTCPClientTemplate, ASTFTCPServerTemplate, ASTFTemplate

import xvs_connections


class Churn:
    def get_profile(self, tunables, **kwargs):
        found = xvs_connections.parser(__doc__.splitlines()[0]).parse_args(tunables)
        request = xvs_connections.message("request", found.request)
        answer = xvs_connections.message("answer", found.answer)

        client = ASTFProgram()
        client.send(request)
        client.recv(len(answer))

        server = ASTFProgram()
        server.recv(len(request))
        server.send(answer)

        generator, listens = xvs_connections.ends(found)
        return ASTFProfile(
            default_ip_gen=generator,
            templates=ASTFTemplate(
                client_template=ASTFTCPClientTemplate(program=client, ip_gen=generator, cps=1, port=found.vport),
                server_template=ASTFTCPServerTemplate(program=server, assoc=listens),
            ),
        )


def register():
    return Churn()
