/* share - how a process gets the files of another one of its host: first through /proc, and where that is refused, from
 * the owner over a socket.
 *
 * States of a receiver: card known -> opened through /proc (share_open_files), or refused, with the reason -> sent by
 * the owner (share_send) -> received (share_receive), or refused.
 *
 * A file that arrives is the one that the card names: its numbers are compared.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { SHARE_FILES = 2, SHARE_SOCKET_BYTES = 20 };

/* A process with its files: plain bytes, exchanged by the caller with MPI. */
struct share_card {
    uint64_t processes, users, network; /* its namespaces */
    uint64_t devices[SHARE_FILES], numbers[SHARE_FILES];
    int32_t files[SHARE_FILES];
    int32_t process;
    uint32_t user;
    char socket[SHARE_SOCKET_BYTES];
};

/* Without a socket (-1), which a sandbox may forbid, /proc is left. */
struct share {
    struct share_card own;
    int socket;
};

/* Offer these files.  The card goes to the other processes. */
void share_begin(struct share *share, const int *files);
void share_end(struct share *share);

/* Open the files of another process.  0, or -errno with the reason in `why`. */
int share_open_files(const struct share *share, const struct share_card *owner, int *files, char *why, size_t room);
/* By the owner, for a process whose share_open_files was refused: send the files.  0 or -errno. */
int share_send(const struct share *share, const struct share_card *receiver);
/* Receive what the owner has sent, or sends within this time.  0, or -errno with the reason in `why`. */
int share_receive(const struct share *share, const struct share_card *owner, int wait_ms, int *files, char *why,
                  size_t room);
