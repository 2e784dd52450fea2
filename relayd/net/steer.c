/* relayd/net/steer.c - which sockets of one port get the connections to come. */
#include "relayd/net/steer.h"

#include <linux/filter.h>
#include <sys/socket.h>

bool
steer_to_first(int fd, unsigned n)
{
	/* The kernel runs it for each connection: what it returns is the number of the socket. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)SKF_AD_OFF + SKF_AD_RANDOM),
		BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, n > 0 ? n : 1),
		BPF_STMT(BPF_RET | BPF_A, 0),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) == 0;
}
