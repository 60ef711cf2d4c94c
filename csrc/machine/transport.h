/* transport - the protocol's messages over MPI.
 *
 * Works on a duplicate of the user's communicator, so that no message of the user's can be taken for one of ours.
 * Nothing here blocks: sends are posted and remembered, receives are matched (MPI_Improbe, so that any thread may do
 * it) and handed out in the order in which their sender sent them, large ones when they are complete.
 * All functions are called under the runtime's mutex, but for those that say otherwise.
 *
 * A message may have parts: memory that travels behind its bytes, without a copy of ours.  When the bytes are here, the
 * receiver is asked where the parts go (`place`), and gets the message when they have come, too.  They travel on a
 * communicator of their own, so that no part can be matched for a message.  A receiver of the same host that can read the
 * sender's memory copies them from there (board.h), and nobody waits for the sender's thread to wake up once more.
 *
 * Invariants
 *  1. Between two ranks messages come out in the order in which they went in.
 *  2. The memory of a message belongs to the transport from transport_send until MPI says that the send is complete.
 */
#ifndef MACHINE_TRANSPORT_H
#define MACHINE_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

struct transport;
struct board;

enum { TRANSPORT_PARTS_MAX = 32 };

struct transport_part {
    void *at;
    uint64_t bytes;  /* at most 1 GiB */
    uint64_t offset; /* of one that is received: where it lies in the sender's memory, or TRANSPORT_NOWHERE */
};

/* A part that is of no use any more. */
#define TRANSPORT_NOWHERE UINT64_MAX

/* Where the transport gets and gives back the memory of messages.  `take` never fails (it panics itself). */
struct transport_buffers {
    void *context;
    void *(*take)(void *context, uint64_t bytes);
    void (*give)(void *context, void *buffer, uint64_t bytes);
    void (*broken)(void *context, const char *text); /* MPI failed; does not return */
    /* All parts of the message that was sent with this token have been taken. */
    void (*sent)(void *context, void *token);
    /* The bytes of a message with parts are here: the number of parts, and *token, which comes out with the message. */
    int (*place)(void *context, int source, void *buffer, uint64_t bytes, struct transport_part *parts, void **token);
};

/* Ask for a duplicate of the communicator that mpi_comm points to.  Collective, but it does not wait for other ranks: only
 * rank and size may be asked before transport_opened says yes.  Without the mutex.  0, or -1 with `text`. */
int transport_open(struct transport **transport, const void *mpi_comm, const struct transport_buffers *buffers,
                   char *text, int text_capacity);
/* Have all ranks asked?  1: yes, the transport can be used; 0: not yet; -1 with `text`: it is deleted. */
int transport_opened(struct transport *transport, char *text, int text_capacity);
int transport_rank(const struct transport *transport);
int transport_size(const struct transport *transport);

/* From here on messages are cut, delayed and mixed (chaos.h).  On all ranks, before the first message.  0, or -1 where
 * there is no memory. */
int transport_disturb(struct transport *transport, uint64_t seed);

/* From here on parts, which must lie in the memory that the board shows, are not sent where the receiver can copy them. */
void transport_copy_by(struct transport *transport, struct board *board);

/* Send `bytes` of `buffer` (which came from `take` with `capacity` bytes); it goes back with `give` when MPI is
 * done. */
void transport_send(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity);

/* The same with parts, which must not change until `sent` is called with the token; that may be before this returns. */
void transport_send_parts(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity,
                          const struct transport_part *parts, int count, void *token);

/* Bytes that were copied here from the memory of others since this was asked last. */
uint64_t transport_copied(struct transport *transport);

/* The next message that has arrived, if any: its sender, or -1.  The caller owns *buffer (taken with *bytes).  *token
 * is that of `place`, or NULL: a message without parts. */
int transport_receive(struct transport *transport, void **buffer, uint64_t *bytes, void **token);

/* Sends that MPI has not finished, parts that have not come, and messages that chaos holds back: somebody has to go on
 * calling transport_receive for them to end.  (What others copy themselves ends without, and is noticed at the next one.) */
unsigned transport_pending(const struct transport *transport);

/* This rank will ask nobody for anything any more: true when that holds for all ranks.  Asked again and again; until then
 * this rank goes on receiving and answering. */
bool transport_quiet(struct transport *transport);

/* Complete all that is pending and free the duplicate.  Collective; after the protocol's own last meeting. */
void transport_close(struct transport *transport);

/* Start and end of a job only, before the service threads run: plain MPI collectives on the duplicate. */
uint64_t transport_agree_min(struct transport *transport, uint64_t value);
uint64_t transport_agree_max(struct transport *transport, uint64_t value);
void transport_gather(struct transport *transport, const void *mine, int bytes, void *all);
void transport_broadcast(struct transport *transport, void *value, int bytes);

/* Call `call` when the program calls MPI_Finalize, before MPI ends.  0 or -1. */
int transport_before_finalize(void (*call)(void));

/* This process among those that were started together; false where MPI is not initialised, or finalized. */
bool transport_world(int *rank, int *size);

/* MPI_Abort of the world, not of the duplicate.  Any thread; does not return.  Of the world MPICH tells the launcher, whose
 * status then is `status`.  Of another communicator it tells only the ranks: these leave on their own, the launcher kills
 * those that are late, and joins the statuses (1 | 9 in one job of a hundred on busy cores). */
void transport_abort(int status);

#endif
