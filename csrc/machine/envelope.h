/* envelope - the bytes of one message as MPI carries them, and the memory that may travel behind them.
 *
 * A message is an envelope and 0 to 32 parts.  The envelope says whether there are any:
 *   ENVELOPE_ALONE   there are none
 *   ENVELOPE_PARTS   MPI sends them behind the envelope
 * The kind is the tag of the envelope's MPI message.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { TRANSPORT_PARTS_MAX = 32 };
enum envelope_kind { ENVELOPE_ALONE, ENVELOPE_PARTS };

struct envelope {
    void *buffer; /* from buffers->take, with `bytes` bytes */
    uint64_t bytes;
    int source;
    int kind;      /* enum envelope_kind */
    bool complete; /* MPI has received all of it */
};

struct transport_part {
    void *at;
    uint64_t bytes; /* at most 1 GiB */
};

/* What the transport needs from its caller.  Called under the runtime's mutex, also in a fault handler. */
struct transport_buffers {
    void *context;
    void *(*take)(void *context, uint64_t bytes); /* memory for a message; never NULL */
    void (*give)(void *context, void *buffer, uint64_t bytes);
    void (*broken)(void *context, const char *text); /* MPI failed; does not return */
    /* The receiver has all parts of the message that was sent with this token. */
    void (*sent)(void *context, void *token);
    /* The envelope of a message with parts is here: fills in where the parts go, and returns how many there are.
     * *token comes out of transport_receive with the message. */
    int (*place)(void *context, int source, void *buffer, uint64_t bytes, struct transport_part *parts, void **token);
};
