// SPDX-License-Identifier: Apache-2.0
/* Bytes over TCP or TLS in both directions, cut into messages of a 16-bit length and that many
 * octets. It knows no DNS.
 *
 * Writing: stream_begin_message, fill, stream_end_message. Nothing is sent before the end of the
 * turn; then everything gathered goes out in as few TLS records and system calls as it takes. On a
 * TLS stream nothing is sent before the handshake has authenticated the peer: what was written
 * waits, and is thrown away when it fails (FAULTS E1). A turn sends no more than WRITE_BUDGET of
 * one stream: the rest when epoll says that the socket takes more. Reading: on_readable says that
 * bytes came; stream_next_message gives message after message until STATUS_AGAIN. Reading is
 * bounded per turn, so one stream with endless data cannot starve the others. Closing:
 * stream_close, or the peer, or an error; on_closed comes once, at the end of the turn, and the
 * owner may then free the stream's object.
 *
 * Thread: the worker of its loop. Owner: the object that embeds it (connection, TCP client). Its
 * buffers are taken when the first byte needs them; a quiet plain stream gives them back. */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/address.h"
#include "base/body.h"
#include "base/failure.h"
#include "base/list.h"
#include "base/status.h"
#include "net/buffer.h"
#include "net/loop.h"
#include "net/tls.h"

enum stream_state {
    STREAM_CONNECTING,
    STREAM_HANDSHAKING,
    STREAM_OPEN,
    STREAM_CLOSED, /* nothing more is sent or reported, except on_closed if that is still due */
};

/* The longest message behind its length, with room to read on. */
enum { STREAM_IN_MAX = 69632 };

struct stream;

/* All are called from the loop, never from inside a function of this header. */
struct stream_handler {
    void (*on_connected)(struct stream *stream); /* TCP is up, TLS begins; may be NULL */
    void (*on_open)(struct stream *stream);      /* bytes may flow; may be NULL */
    void (*on_readable)(struct stream *stream);  /* take messages now, or pause */
    void (*on_written)(struct stream *stream);   /* a flush moved bytes out; may be NULL */
    /* The peer will send no more (half-close). NULL: treated as a close. Not while paused. */
    void (*on_end)(struct stream *stream);
    void (*on_closed)(struct stream *stream, enum failure failure);
};

struct stream {
    struct loop *loop;
    const struct stream_handler *handler;
    struct tls *tls; /* NULL: plain TCP */
    struct loop_source source;
    struct loop_task flush;
    struct loop_task reap;
    struct loop_task more; /* goes on with what epoll will not announce again */
    struct buffer in;
    struct buffer out;
    struct list shares; /* bodies that are to be sent between the bytes of `out`, in order */
    size_t shared;      /* bytes of them that are not sent yet */
    struct output_account *account; /* of all that; NULL: none. Set before there is any */
    size_t out_limit;               /* most bytes that wait to be sent */
    enum stream_state state;
    enum failure failure; /* why it closed */
    int fd;
    uint32_t events;          /* what epoll watches */
    uint32_t read_waits_for;  /* EPOLLIN, or EPOLLOUT when TLS must write before it can read */
    uint32_t write_waits_for; /* EPOLLOUT or EPOLLIN; 0: not blocked */
    bool reading_paused;
    bool ended;              /* the peer has sent its last byte */
    bool end_reported;       /* on_end has been called */
    bool finishing;          /* close when the out buffer is empty */
    uint64_t bytes_received; /* ever; tests watch both */
    uint64_t bytes_sent;
};

/* Begins a connection. With `client` the stream is TLS. `out_limit` bounds the bytes waiting to be
 * sent. STATUS_SYSTEM when it could not even begin; `*failure` then says why, and on_closed is not
 * called. */
enum status stream_connect(struct stream *stream, struct loop *loop,
                           const struct stream_handler *handler, const struct address *address,
                           struct tls_client *client, uint64_t user_timeout_ns, size_t out_limit,
                           enum failure *failure);

/* The same in two steps, for who connects the socket itself: a stream that is connecting, into
 * which messages may be written, and then its connected socket, which becomes the stream's
 * whatever happens. */
void stream_prepare(struct stream *stream, struct loop *loop, const struct stream_handler *handler,
                    size_t out_limit);
void stream_start(struct stream *stream, int fd, struct tls_client *client);

/* Takes over an accepted, plain TCP socket. The stream is open at once, without on_open. On failure
 * the descriptor stays the caller's. */
enum status stream_accept(struct stream *stream, struct loop *loop,
                          const struct stream_handler *handler, int fd, size_t out_limit);

/* Room for a message of up to `max_length` octets (<= 65535), NULL when out_limit would be passed,
 * memory is short, or the stream is closed or finishing. At most one message is begun at a time. */
uint8_t *stream_begin_message(struct stream *stream, size_t max_length);

/* Queues the begun message with its real length, behind its 2-octet length field (RFC 7766 8). */
void stream_end_message(struct stream *stream, size_t length);

/* Queues a message of which `bytes` lack the body at offset `at`: that is held until it is sent,
 * not copied. False as stream_begin_message. */
bool stream_send_around(struct stream *stream, const uint8_t *bytes, size_t length, size_t at,
                        struct body *body);

/* The next whole message; it stays in place until on_readable returns, or the stream is freed.
 * STATUS_AGAIN: none is whole yet, or the stream is closed. Lengths from 0 up are given as they
 * came. */
enum status stream_next_message(struct stream *stream, const uint8_t **message, size_t *length);

/* True when one is. */
bool stream_has_message(const struct stream *stream);

/* Gives the message that was taken last back, to be the next one again. */
void stream_return_message(struct stream *stream, size_t length);

/* True when part of a message has come and the rest has not. */
bool stream_has_partial(const struct stream *stream);

/* Bytes waiting to be sent. */
size_t stream_unsent(const struct stream *stream);

/* Bytes of memory that it keeps from others; of a body that it shares its part. */
size_t stream_held(const struct stream *stream);

/* While paused nothing is read from the socket. Resuming reports what is already buffered through
 * on_readable at the end of the turn. */
void stream_pause(struct stream *stream);
void stream_resume(struct stream *stream);

/* Sends what is waiting, then closes with `failure`; reading goes on being reported until then.
 * What a plain TCP peer has sent unread is thrown away, lest a reset overtake our last bytes. */
void stream_finish(struct stream *stream, enum failure failure);

/* Closes now, throwing away what is not sent: on_closed(failure) at the end of the turn. Harmless
 * when closed. */
void stream_close(struct stream *stream, enum failure failure);

/* Frees descriptor, TLS and buffers. For the owner, inside or after on_closed, or instead of it
 * when the loop has ended. */
void stream_free(struct stream *stream);

#endif
