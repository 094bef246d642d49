/* Inside of the MQTT door: mqtt.c (the life of a connection, its input), mqtt_connect.c,
 * mqtt_auth.c (enhanced authentication), mqtt_rights.c (who it is, what it may), mqtt_publish.c
 * (what comes in), mqtt_deliver.c (what goes out), mqtt_subscribe.c, mqtt_message.c (properties and
 * headers). All of a connection happens on its loop. */
#ifndef MQTT_PRIV_H
#define MQTT_PRIV_H
#include "protocols/mqtt/mqtt.h"
#include "protocols/mqtt/mqtt_encode.h"
#include "server/base/log.h"
#include "server/base/mem.h"
#include "server/broker/auth.h"
#include "server/broker/session.h"

enum mqtt_metric {
	M_CONNECTED,
	M_CONNECTS,
	M_CONNECTS_REFUSED,
	M_TAKEN_OVER,
	M_KEEP_ALIVE,
	M_PROTOCOL_ERRORS,
	M_PUBLISH_IN_0,
	M_PUBLISH_IN_1,
	M_PUBLISH_IN_2,
	M_PUBLISH_OUT_0,
	M_PUBLISH_OUT_1,
	M_PUBLISH_OUT_2,
	M_PUBLISH_FAILED,
	M_PUBLISH_DENIED,
	M_DROPPED_EXPIRED,
	M_DROPPED_TOO_LARGE,
	M_DROPPED_QUOTA,
	M_SUBSCRIPTIONS,
	M_INPUT_PAUSED
};
#define COUNT(m, row, n) metric_add(loop_cells((m)->home->loop), &mqtt_metrics, (row), (n))

struct mqtt_props_cache { /* properties of the record delivered last, encoded: same for all */
	struct buf buf;
	const struct partition *partition;
	int64_t offset, at_ms;
};

struct mqtt_loop { /* one per loop */
	struct mqtt *mqtt;
	struct loop *loop;
	struct shard *shard;
	struct list spare; /* struct inbound */
	int spare_count;
	struct mqtt_props_cache cache;
	struct mqtt_user *users; /* scratch */
	uint32_t *ids;           /* scratch: subscription ids */
	int users_room, ids_room;
	struct list logins; /* waiting for the rate */
	struct loop_timer login_timer;
	int64_t tokens_us, tokens_at_ms;
};

struct mqtt {
	const struct mqtt_conf *conf;
	struct broker *broker;
	struct sessions *sessions;
	int count;
	struct mqtt_loop loops[];
};

enum mqtt_pause {            /* why input is not read; bits */
	PAUSE_LOGIN = 1,     /* until CONNACK */
	PAUSE_ROOM = 2,      /* the broker has too much in flight */
	PAUSE_INFLIGHT = 4,  /* this client has */
	PAUSE_SUBSCRIBE = 8, /* one SUBSCRIBE or UNSUBSCRIBE at a time */
	PAUSE_OUTPUT = 16,   /* the client does not read its answers */
	PAUSE_QUOTA = 32     /* over a quota */
};

struct mqtt_conn {
	struct conn *conn;
	struct mqtt_loop *home;
	struct session *session;   /* from CONNACK to the end */
	struct login *login;       /* from CONNECT to CONNACK */
	struct exchange *exchange; /* of enhanced authentication; NULL: none under way */
	struct held *held;         /* what waits to be sent; NULL: nothing */
	struct alias *aliases;     /* alias_max of them; NULL: none set yet */
	struct list inbound;       /* publishes not acknowledged yet, in order */
	struct subop *subop;       /* the SUBSCRIBE or UNSUBSCRIBE under way */
	struct list releases;      /* PUBRELs whose row is being removed */
	struct room_wait room;
	struct access_holder holder; /* from the login on: who the client is */
	struct throttle *throttle;   /* NULL: never over a quota yet */
	int64_t seen_ms;             /* of the last input */
	uint32_t seen_bytes;         /* of input left by then, or at the last timeout */
	uint32_t seen_taken; /* conn_taken, at the last timeout of PAUSE_OUTPUT or its beginning */
	struct mqtt_peer peer;
	uint32_t expiry_s; /* of the session, as the client wants it now */
	uint16_t keep_alive_s;
	uint16_t receive_max;      /* the client's, capped */
	uint16_t receive_max_told; /* ours, as CONNACK said it */
	uint16_t inbound_count;
	uint16_t quota;        /* QoS 1 and 2 that came in and are not completed */
	uint8_t pauses;        /* enum mqtt_pause */
	uint8_t auth_method;   /* mqtt_auth_method of CONNECT; 0: none */
	uint8_t id_skip;       /* bytes of the session's id before the client's: the tenant */
	bool graceful : 1;     /* DISCONNECT without will */
	bool expires : 1;      /* CONNECT asked for a session that lasts */
	bool acked : 1;        /* the window has got room in this turn */
	bool sifts : 1;        /* some topics of its subscriptions are denied */
	bool rights_moved : 1; /* while subscriptions were on their way */
	bool throttled : 1;    /* takes no deliveries, over a quota */
};

/* mqtt.c */
static inline struct mqtt_conn *mqtt_of(struct conn *c)
{
	return conn_state(c);
}
static inline struct bytes mqtt_client_id(const struct mqtt_conn *m) /* as the client has it */
{
	return bytes_of(m->session->id + m->id_skip, (size_t)m->session->id_len - m->id_skip);
}
void mqtt_pause(struct mqtt_conn *m, enum mqtt_pause why);
void mqtt_unpause(struct mqtt_conn *m, enum mqtt_pause why);
/* Ends the connection: says why (MQTT 5), counts and logs. Gives the error that input returns. */
enum err mqtt_refuse(struct mqtt_conn *m, enum mqtt_reason reason, const char *what);
/* After writing to conn_out: e is what the writer gave. */
void mqtt_wrote(struct mqtt_conn *m, enum err e);
/* What a failure of ours is called, in acknowledgements. */
enum mqtt_reason mqtt_reason_of(enum err e);

/* mqtt_connect.c */
enum err mqtt_on_connect(struct mqtt_conn *m, const struct mqtt_frame *f);
void mqtt_login_timeout(struct mqtt_conn *m);
void mqtt_login_end(struct mqtt_conn *m); /* the connection goes */
void mqtt_login_init(struct mqtt_loop *l);
void mqtt_arm_keep_alive(struct mqtt_conn *m);
void mqtt_login_lost(struct mqtt_conn *m); /* its user is gone: so is the connection */
/* How enhanced authentication ended; takes access, borrows last, the answer to the client. */
void mqtt_login_proved(struct mqtt_conn *m, enum err e, struct access *access, struct bytes last);

/* mqtt_auth.c */
int mqtt_auth_method(struct bytes name); /* 0: there is none of that name */
/* The client's first message, by m->auth_method; asks it to go on. ERR_MALFORMED, ERR_UNAVAILABLE,
 * ERR_NOMEM. */
enum err mqtt_auth_begin(struct mqtt_conn *m, struct bytes data) MUST_USE;
enum err mqtt_on_auth(struct mqtt_conn *m, const struct mqtt_frame *f);
void mqtt_auth_props(const struct mqtt_conn *m, struct bytes data, struct mqtt_props *p);
void mqtt_auth_end(struct mqtt_conn *m);

/* mqtt_rights.c */
struct auth_peer mqtt_auth_peer(const struct mqtt_conn *m);
enum err mqtt_hold(struct mqtt_conn *m, struct access *a) MUST_USE; /* takes a, but for ERR_BUSY */
void mqtt_rights_changed(struct mqtt_conn *m);                      /* looks at all subscriptions */
uint8_t mqtt_may_subscribe(struct mqtt_conn *m, struct bytes filter); /* 0, or the code */
bool mqtt_may_publish(struct mqtt_conn *m, struct bytes topic);
bool mqtt_may_receive(struct mqtt_conn *m, struct bytes topic);
void mqtt_charge_in(struct mqtt_conn *m, size_t bytes); /* of a message */
void mqtt_charge_out(struct mqtt_conn *m, size_t bytes);
void mqtt_rights_end(struct mqtt_conn *m);

/* mqtt_publish.c */
enum err mqtt_on_publish(struct mqtt_conn *m, const struct mqtt_frame *f);
enum err mqtt_on_pubrel(struct mqtt_conn *m, const struct mqtt_frame *f);
void mqtt_flush_acks(struct mqtt_conn *m); /* those that are due */
void mqtt_publish_end(struct mqtt_conn *m);
void mqtt_publish_fini(struct mqtt_loop *l);

/* mqtt_deliver.c */
bool mqtt_deliver(struct session *s, const struct delivery *d);
bool mqtt_again(struct session *s, uint16_t packet_id, const struct delivery *d);
enum err mqtt_on_puback(struct mqtt_conn *m, const struct mqtt_frame *f);
enum err mqtt_on_pubrec(struct mqtt_conn *m, const struct mqtt_frame *f);
enum err mqtt_on_pubcomp(struct mqtt_conn *m, const struct mqtt_frame *f);
void mqtt_release_held(struct mqtt_conn *m); /* what has room and is in the log leaves */
void mqtt_after_acks(struct mqtt_conn *m);
void mqtt_drained(struct mqtt_conn *m);
void mqtt_deliver_end(struct mqtt_conn *m);
void mqtt_sift_held(struct mqtt_conn *m); /* what may not be sent any more goes */

/* mqtt_subscribe.c */
enum err mqtt_on_subscribe(struct mqtt_conn *m, const struct mqtt_frame *f);
enum err mqtt_on_unsubscribe(struct mqtt_conn *m, const struct mqtt_frame *f);
void mqtt_flush_subop(struct mqtt_conn *m);
void mqtt_subscribe_end(struct mqtt_conn *m); /* what is left goes with the session */
void mqtt_ended(struct session *s);

/* mqtt_message.c: MQTT 5 properties as record headers, and back. */
enum { MQTT_HEADERS_MAX = 1000 };
struct mqtt_headers {
	struct record_header at[MQTT_HEADERS_MAX];
	int count;
	char pfi[2];
};
/* Headers of p in their stored order; from: the publisher's client id if it is to be known (No
 * Local), else empty; user: who it is, the only "user-id" that is taken. ERR_TOOBIG: too many user
 * properties. */
enum err mqtt_headers_fill(struct mqtt_headers *h, const struct mqtt_props *p, struct bytes from,
	struct bytes user) MUST_USE;
/* The properties of a stored message, encoded; good until the next call on this loop. */
struct bytes mqtt_message_props(struct mqtt_loop *l, const struct delivery *d);
/* The expiry in them: where its four bytes are (0: there is none), and what they say by now. */
size_t mqtt_message_expiry_at(struct bytes props);
uint32_t mqtt_message_expiry_s(const struct mqtt_loop *l, int64_t expires_at_ms);
/* Whether the client with this id published it (as far as that was marked). */
bool mqtt_message_from(const struct message *m, struct bytes client_id);

#endif
