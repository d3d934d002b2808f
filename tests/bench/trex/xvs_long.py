"""Long TCP connections to one virtual service: many at once, each with a request and an answer now and then.

    start -f xvs_long.py -m 10000 -d 300 -t --connections 1000000 --rounds 60 --pause 1000

opens 10,000 connections a second until there are a million, and each asks once a second, 60 times.

What it shows: what a full table costs. Compare the director's time per packet at 10,000, 100,000 and 1,000,000 connections
at the same packet rate (connections divided by the pause), and its memory. Retransmissions in TRex's statistics are
packets that somebody lost.
"""

from trex.astf.api import ASTFProfile, ASTFProgram, ASTFTCPClientTemplate, ASTFTCPServerTemplate, ASTFTemplate

import xvs_connections


class Long:
    def get_profile(self, tunables, **kwargs):
        arguments = xvs_connections.parser(__doc__.splitlines()[0])
        arguments.add_argument("--connections", type=xvs_connections.within(1, 100000000, "number"), default=100000, help="how many at once, at most")
        arguments.add_argument("--rounds", type=xvs_connections.within(1, 1000000, "number"), default=60, help="requests of a connection")
        arguments.add_argument("--pause", type=xvs_connections.within(1, 600000, "time in ms"), default=1000, help="ms after each answer")
        found = arguments.parse_args(tunables)
        request = xvs_connections.message("request", found.request)
        answer = xvs_connections.message("answer", found.answer)

        client = ASTFProgram()
        client.set_var("round", found.rounds)
        client.set_label("again:")
        client.send(request)
        client.recv(len(answer), clear=True)
        client.delay(found.pause * 1000)
        client.jmp_nz("round", "again:")

        server = ASTFProgram()
        server.set_var("round", found.rounds)
        server.set_label("again:")
        server.recv(len(request), clear=True)
        server.send(answer)
        server.jmp_nz("round", "again:")

        generator, listens = xvs_connections.ends(found)
        return ASTFProfile(
            default_ip_gen=generator,
            templates=ASTFTemplate(
                client_template=ASTFTCPClientTemplate(
                    program=client, ip_gen=generator, cps=1, port=found.vport, limit=found.connections
                ),
                server_template=ASTFTCPServerTemplate(program=server, assoc=listens),
            ),
        )


def register():
    return Long()
