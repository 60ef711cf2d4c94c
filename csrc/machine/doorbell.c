/* Why datagrams: ringing must never block, and a sleeper costs nothing while no request comes.  Why UDP on one host,
 * too, where an abstract unix socket wakes a rank some microseconds earlier: one way does for all, and the ranks of a
 * node do not ring each other.
 *
 * A peer on this host is rung at the loopback address.  One on another host is rung at its address in a subnet that
 * this host is in as well, since cluster nodes often have networks that cannot reach each other; bridges of containers
 * and virtual machines have the same address on every host and are passed over.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "doorbell.h"

#include "clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NETWORKS_MAX = 12 };

#define SECOND_NS INT64_C(1000000000)

struct network {
    uint32_t address; /* in network byte order, like the mask */
    uint32_t mask;
};

/* What is in the bytes of a struct doorbell_address. */
struct card {
    uint64_t host;
    uint16_t port; /* in network byte order; 0: no socket */
    uint16_t networks_count;
    struct network networks[NETWORKS_MAX];
};

_Static_assert(sizeof(struct card) <= DOORBELL_ADDRESS_BYTES, "the card must fit into the address");

/* The bell proper is the token alone; the self-test adds the ringing rank, since addresses change on the way
 * through some nets. */
struct test_bell {
    uint64_t token;
    uint32_t rank;
    uint32_t zero;
};

struct bell_peer {
    struct sockaddr_in address; /* with port 0: cannot be reached */
    bool same_host;
    bool heard;
};

/* Invariant: peers has `size` entries from doorbell_connect on; before, it is NULL. */
struct doorbell {
    int socket; /* -1: none could be had */
    struct card card;
    uint64_t token;
    int rank, size;
    struct bell_peer *peers;
    atomic_bool farewell; /* some rank said that it ends */
};

/* ---- own address ------------------------------------------------------------------------------------------------ */

/* FNV-1a, 64 bits (Fowler, Noll, Vo: the constants are theirs). */
static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* Two ranks are on one host when they have the same loopback address: same kernel (boot id) and network namespace.  The
 * name is for hosts whose boot id cannot be read. */
static uint64_t host_identity(void)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    char text[256] = "";
    if (gethostname(text, sizeof text - 1) == 0)
        hash = mix(hash, text, strlen(text));
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t bytes = read(file, text, sizeof text);
        if (bytes > 0)
            hash = mix(hash, text, (size_t)bytes);
        close(file);
    }
    struct stat status;
    if (stat("/proc/self/ns/net", &status) == 0)
        hash = mix(hash, &status.st_ino, sizeof status.st_ino);
    return hash;
}

static void add_networks(struct card *card, const struct ifaddrs *all, bool loopback)
{
    for (const struct ifaddrs *one = all; one; one = one->ifa_next) {
        unsigned wanted = IFF_UP | IFF_RUNNING;
        if (!one->ifa_addr || !one->ifa_netmask || one->ifa_addr->sa_family != AF_INET)
            continue;
        if ((one->ifa_flags & wanted) != wanted || ((one->ifa_flags & IFF_LOOPBACK) != 0) != loopback)
            continue;
        if (card->networks_count == NETWORKS_MAX)
            return;
        struct sockaddr_in address, mask;
        memcpy(&address, one->ifa_addr, sizeof address);
        memcpy(&mask, one->ifa_netmask, sizeof mask);
        card->networks[card->networks_count++] =
            (struct network){.address = address.sin_addr.s_addr, .mask = mask.sin_addr.s_addr};
    }
}

static void find_networks(struct card *card)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0)
        return;
    add_networks(card, all, false);
    add_networks(card, all, true);
    freeifaddrs(all);
}

/* ---- sockets --------------------------------------------------------------------------------------------------- */

static int open_socket(struct card *card)
{
    int file = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t bytes = sizeof address;
    if (file < 0)
        return -1;
    if (bind(file, (const struct sockaddr *)&address, bytes) != 0 ||
        getsockname(file, (struct sockaddr *)&address, &bytes) != 0) {
        close(file);
        return -1;
    }
    card->port = address.sin_port;
    return file;
}

struct doorbell *doorbell_open(struct doorbell_address *address)
{
    struct doorbell *made = calloc(1, sizeof *made);
    *address = (struct doorbell_address){0};
    if (!made)
        return NULL;
    made->card.host = host_identity();
    made->socket = open_socket(&made->card);
    find_networks(&made->card);
    memcpy(address->bytes, &made->card, sizeof made->card);
    return made;
}

void doorbell_close(struct doorbell *bell)
{
    if (!bell)
        return;
    if (bell->socket >= 0)
        close(bell->socket);
    free(bell->peers);
    free(bell);
}

/* ---- peers ----------------------------------------------------------------------------------------------------- */

static bool is_loopback(uint32_t address)
{
    return ntohl(address) >> 24 == 127;
}

static bool is_mine(const struct card *mine, uint32_t address)
{
    for (unsigned i = 0; i < mine->networks_count; i++)
        if (mine->networks[i].address == address)
            return true;
    return false;
}

static bool shares_subnet(const struct card *mine, struct network theirs)
{
    for (unsigned i = 0; i < mine->networks_count; i++) {
        struct network ours = mine->networks[i];
        if (ours.mask == theirs.mask && (ours.address & ours.mask) == (theirs.address & theirs.mask))
            return true;
    }
    return false;
}

/* 0 where there is no address. */
static uint32_t choose_address(const struct card *mine, const struct card *theirs)
{
    uint32_t second_best = 0;
    for (unsigned i = 0; i < theirs->networks_count; i++) {
        struct network network = theirs->networks[i];
        if (is_loopback(network.address) || is_mine(mine, network.address))
            continue;
        if (shares_subnet(mine, network))
            return network.address;
        if (!second_best)
            second_best = network.address;
    }
    return second_best;
}

static void find_peer(const struct doorbell *bell, const struct card *theirs, struct bell_peer *peer)
{
    peer->same_host = theirs->host == bell->card.host;
    uint32_t address = peer->same_host ? htonl(INADDR_LOOPBACK) : choose_address(&bell->card, theirs);
    if (address)
        peer->address =
            (struct sockaddr_in){.sin_family = AF_INET, .sin_port = theirs->port, .sin_addr.s_addr = address};
}

int doorbell_connect(struct doorbell *bell, const struct doorbell_address *all, int rank, int size, uint64_t token)
{
    bool others = false;
    struct bell_peer *peers = calloc((size_t)size, sizeof *peers);
    if (!peers)
        return -ENOMEM;
    for (int i = 0; i < size; i++) {
        struct card theirs;
        memcpy(&theirs, all[i].bytes, sizeof theirs);
        if (theirs.networks_count > NETWORKS_MAX) {
            free(peers);
            return -EINVAL;
        }
        find_peer(bell, &theirs, &peers[i]);
        others = others || !peers[i].same_host;
    }
    if (!others) /* nobody from outside is listened to, where the kernel allows to say so */
        (void)setsockopt(bell->socket, SOL_SOCKET, SO_BINDTODEVICE, "lo", sizeof "lo");
    free(bell->peers);
    bell->peers = peers;
    bell->rank = rank;
    bell->size = size;
    bell->token = token;
    return 0;
}

bool doorbell_same_host(const struct doorbell *bell, int peer)
{
    return bell->peers[peer].same_host;
}

/* ---- ringing and sleeping -------------------------------------------------------------------------------------- */

static void send_to(const struct doorbell *bell, const struct bell_peer *peer, const void *data, size_t bytes)
{
    if (peer->address.sin_port == 0)
        return;
    ssize_t ignored = sendto(bell->socket, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL,
                             (const struct sockaddr *)&peer->address, sizeof peer->address);
    (void)ignored;
}

void doorbell_ring(struct doorbell *bell, int peer)
{
    send_to(bell, &bell->peers[peer], &bell->token, sizeof bell->token);
}

/* A farewell is the token with every bit turned. */
void doorbell_farewell(struct doorbell *bell, int peer)
{
    uint64_t farewell = ~bell->token;
    if (bell->peers[peer].same_host)
        send_to(bell, &bell->peers[peer], &farewell, sizeof farewell);
}

bool doorbell_farewell_heard(const struct doorbell *bell)
{
    return atomic_load(&bell->farewell);
}

static bool is_bell(struct doorbell *bell, const struct test_bell *datagram, ssize_t bytes)
{
    if (bytes == (ssize_t)sizeof bell->token && datagram->token == ~bell->token)
        atomic_store(&bell->farewell, true);
    if (bytes == (ssize_t)sizeof bell->token)
        return datagram->token == bell->token;
    if (bytes != (ssize_t)sizeof *datagram || datagram->token != bell->token || datagram->rank >= (uint32_t)bell->size)
        return false;
    bell->peers[datagram->rank].heard = true;
    return true;
}

/* MSG_TRUNC returns the true length, so that a longer datagram is not taken for one of ours. */
static bool drain(struct doorbell *bell)
{
    bool rung = false;
    struct test_bell datagram;
    ssize_t bytes;
    while ((bytes = recv(bell->socket, &datagram, sizeof datagram, MSG_DONTWAIT | MSG_TRUNC)) >= 0)
        rung = is_bell(bell, &datagram, bytes) || rung;
    return rung;
}

bool doorbell_wait(struct doorbell *bell, int64_t wait_ns)
{
    if (wait_ns > 0) {
        struct timespec limit = {.tv_sec = wait_ns / SECOND_NS, .tv_nsec = wait_ns % SECOND_NS};
        ppoll(&(struct pollfd){.fd = bell->socket, .events = POLLIN}, 1, &limit, NULL); /* -1 is passed over */
    }
    return drain(bell);
}

/* ---- self-test ------------------------------------------------------------------------------------------------- */

/* All ranks ring at once: each rank begins with its neighbour and empties its own queue meanwhile, and rings twice,
 * so that a queue that overflows is not taken for a firewall. */
void doorbell_test_ring(struct doorbell *bell)
{
    enum { DRAIN_EVERY = 32 };
    struct test_bell datagram = {.token = bell->token, .rank = (uint32_t)bell->rank};
    for (int k = 1; k < 2 * bell->size; k++) {
        send_to(bell, &bell->peers[(bell->rank + k) % bell->size], &datagram, sizeof datagram);
        if (k % DRAIN_EVERY == 0)
            drain(bell);
    }
}

static int count_missing(const struct doorbell *bell)
{
    int missing = 0;
    for (int i = 0; i < bell->size; i++)
        missing += !bell->peers[i].heard;
    return missing;
}

int doorbell_test_missing(struct doorbell *bell, int64_t wait_ns)
{
    int64_t end_ns = clock_now_ns() + wait_ns;
    drain(bell);
    while (count_missing(bell) > 0 && clock_now_ns() < end_ns)
        doorbell_wait(bell, end_ns - clock_now_ns());
    return count_missing(bell);
}
