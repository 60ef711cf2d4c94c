#include "runtime/made.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* FNV-1a (Fowler, Noll, Vo), over the ends of the texts, too. */
static uint64_t add_up(uint64_t sum, const char *call)
{
    const size_t bytes = strlen(call) + 1;
    for (size_t i = 0; i < bytes; i++)
        sum = (sum ^ (unsigned char)call[i]) * 0x100000001b3u;
    return sum;
}

void made_add(struct made *made, const char *call)
{
    made->sum = add_up(made->sum ? made->sum : 0xcbf29ce484222325u, call);
    size_t used = strlen(made->text);
    bool repeated = made->repeats && strncmp(made->last, call, sizeof made->last - 1) == 0;
    made->repeats = repeated ? made->repeats + 1 : 1;
    if (!repeated)
        made->last_at = used;
    snprintf(made->last, sizeof made->last, "%s", call);
    char *at = made->text + made->last_at;
    size_t room = sizeof made->text - made->last_at;
    int length = repeated ? snprintf(at, room, "%s%u x %s", made->last_at ? ", " : "", made->repeats, call)
                          : snprintf(at, room, "%s%s", made->last_at ? ", " : "", call);
    if ((size_t)length >= room)
        memcpy(made->text + sizeof made->text - 4, "...", 4); /* the first ones are of interest */
}

void made_agree(struct made *made)
{
    made->text[0] = 0;
    made->repeats = 0;
    made->last_at = 0;
}

const char *made_tell(const struct made *made, const char *call, char text[MADE_TELL_BYTES])
{
    if (!made->text[0])
        return call;
    snprintf(text, MADE_TELL_BYTES, "%s, then %s", made->text, call);
    return text;
}
