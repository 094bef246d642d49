/* Snapshots. None ever reaches the core. Installing one is where the library is at its weakest (a
 * follower counts, votes and cuts while its log is half replaced), and there is no need: the
 * message is turned into an empty AppendEntries at the snapshot's end, which makes the core take
 * over term and leader; if our log does not hold that point, the instance ends, the owner fetches
 * what the log lacks and the rows, and a new instance starts from them.
 *
 * That may take minutes, and in that time the group may need this voter. So it goes on voting
 * without an instance, for those whose log is no shorter than its own was; and it tells leaders
 * that it is here. A fetch that fails before the log was given up ends with the old instance; later
 * it is begun anew when a leader is heard. */
#include "cluster/consensus_priv.h"
#include "server/base/log.h"

enum { INSTALL_RETRY_MS = 1000 };

static bool holds_point(const struct consensus *c, const struct raft_install_snapshot *s)
{
	return s->last_index <= c->raft->commit_index ||
		guard_term(c->raft, s->last_index) == s->last_term;
}

/* The point was committed and is not in the log here: what this replica has acknowledged, and may
 * be committed, is below it as well as in that log. */
static uint64_t least_of(uint64_t point, uint64_t log_end)
{
	return log_end < point ? log_end : point;
}

static void install_begin(struct consensus *c, const struct raft_wire *m)
{
	const struct raft_install_snapshot *s = &m->message.install_snapshot;
	if (!c->fsm.install) {
		instance_quarantine(c, "behind");
		return;
	}
	raft_configuration_close(&c->install_config);
	raft_config_copy(&s->conf, &c->install_config);
	c->install_config_index = s->conf_index;
	c->install_leader_term = s->term;
	mem_free(c->install_address);
	c->install_address = mem_text(m->address.at, m->address.len);
	c->install = (struct consensus_install){
		.from = m->from,
		.index = s->last_index,
		.term = s->last_term,
		.next_offset = (int64_t)get_u64be(s->data.base),
		.least = least_of(s->last_index, plog_last_index(c->log)),
	};
	c->install_heard_ms = loop_now_ms(c->env->loop);
	instance_drop(c);
	raft_receive_drop_held(c);
	c->phase = PHASE_INSTALLING;
	c->installing = true;
	c->under_way++;
	c->fsm.install(c->fsm_arg, &c->install);
}

void raft_install_receive(struct consensus *c, const struct raft_wire *m)
{
	const struct raft_install_snapshot *s = &m->message.install_snapshot;
	struct raft *r = c->raft;
	struct raft_address from = raft_address_of(m->address);
	bool have = holds_point(c, s);
	struct raft_message copy = {.type = RAFT_IO_APPEND_ENTRIES};
	struct raft_append_entries *a = &copy.append_entries;
	copy.server_id = m->from;
	copy.server_address = from.text;
	a->term = s->term;
	a->prev_log_index = s->last_index > r->commit_index ? s->last_index : r->commit_index;
	a->prev_log_term = have ? guard_term(r, a->prev_log_index) : s->last_term;
	c->guard.receiving = true;
	c->guard.receiving_end = s->last_index;
	c->swallow_results = !have && s->term >= r->current_term;
	c->recv(&c->io, &copy);
	c->guard.receiving = c->swallow_results = false;
	if (!have && r->state == RAFT_FOLLOWER && r->current_term == s->term &&
		loop_now_ms(c->env->loop) >= c->install_at_ms)
		install_begin(c, m);
}

static void installed(struct consensus *c)
{
	if (c->phase != PHASE_INSTALLING || c->closing)
		return;
	if (instance_start(c, plog_marks(c->log)->applied_index) != OK) {
		instance_quarantine(c, "installed");
		return;
	}
	struct raft_message m = {.type = RAFT_IO_APPEND_ENTRIES_RESULT,
		.server_id = c->install.from,
		.server_address = c->install_address};
	m.append_entries_result.term = c->raft->current_term;
	m.append_entries_result.last_log_index = plog_marks(c->log)->applied_index;
	if (c->raft->current_term == c->install_leader_term)
		raft_send(c, &m);
	raft_configuration_close(&c->install_config);
	raft_configuration_init(&c->install_config);
	mem_free(c->install_address);
	c->install_address = NULL;
}

/* Log and rows are what they were. */
static void not_installed(struct consensus *c)
{
	if (c->phase != PHASE_INSTALLING || c->closing)
		return;
	if (instance_start(c, c->applied) != OK)
		instance_quarantine(c, "reload");
}

void consensus_installed(struct consensus *c, enum err e)
{
	must(c->installing && (c->phase == PHASE_INSTALLING || c->closing));
	c->installing = false;
	struct raft_buffer config = {NULL, 0};
	if (e == OK && !c->closing) {
		/* The log may have been fetched further than the leader's message said. */
		if (plog_marks(c->log)->config_index < c->install_config_index &&
			c->install_config.n > 0) {
			must(raft_configuration_encode(&c->install_config, &config) == 0);
			plog_mark_config(
				c->log, c->install_config_index, bytes_of(config.base, config.len));
			raft_free(config.base);
		}
		c->applied_term = 0; /* taken from the marks */
		raft_io_wait_durable(c, installed);
	} else if (e == ERR_CORRUPT && !c->closing) {
		instance_quarantine(c, "install");
	} else if (!c->closing) {
		c->install_at_ms = loop_now_ms(c->env->loop) + INSTALL_RETRY_MS;
		if (!plog_marks(c->log)->seeding)
			raft_io_wait_durable(c, not_installed);
	}
	consensus_let_go(c);
}

/* The fetch has failed, or is from one that does not lead any more; here is a leader. */
static void install_again(struct consensus *c, const struct raft_wire *m)
{
	const struct raft_install_snapshot *s = &m->message.install_snapshot;
	if (m->message.type == RAFT_IO_INSTALL_SNAPSHOT && s->last_index > c->install.index) {
		raft_configuration_close(&c->install_config);
		raft_config_copy(&s->conf, &c->install_config);
		c->install_config_index = s->conf_index;
		c->install.index = s->last_index;
		c->install.term = s->last_term;
		c->install.next_offset = (int64_t)get_u64be(s->data.base);
	}
	mem_free(c->install_address);
	c->install_address = mem_text(m->address.at, m->address.len);
	c->install.from = m->from;
	if (!c->installing)
		c->under_way++;
	c->installing = true;
	c->fsm.install(c->fsm_arg, &c->install);
}

/* A fetch from a leader that was replaced may hang on a machine that is gone, while the new one
 * waits for this replica. */
static bool wants_install(const struct consensus *c, uint64_t leader)
{
	const struct plog_marks *m = plog_marks(c->log);
	if (c->installing)
		return c->install.from != leader && m->applied_index < c->install.index;
	return c->install_heard_ms >= c->install_at_ms && m->seeding;
}

/* The leader is told that somebody is here, and nothing else (it acknowledges index 0): so it goes
 * on leading if it needs this voter for that, and knows that the snapshot was not lost. */
static void answer_leader(struct consensus *c, const struct raft_wire *m)
{
	bool append = m->message.type == RAFT_IO_APPEND_ENTRIES;
	uint64_t ours = plog_marks(c->log)->term;
	uint64_t term = append ? m->message.append_entries.term : m->message.install_snapshot.term;
	if (term < ours)
		return;
	if (term > ours)
		raft_io_mark(c, term, 0);
	c->install_heard_ms = loop_now_ms(c->env->loop);
	if (wants_install(c, m->from)) {
		c->install_leader_term = term;
		install_again(c, m);
	}
	if (!append)
		return;
	struct raft_address to = raft_address_of(m->address);
	struct raft_message answer = {.type = RAFT_IO_APPEND_ENTRIES_RESULT,
		.server_id = m->from,
		.server_address = to.text};
	answer.append_entries_result.term = term;
	raft_send(c, &answer);
}

/* As the core would, had it the log that was here: what this replica has acknowledged, a candidate
 * with no shorter log has as well. Where that log ended is remembered over restarts, so a replica
 * that is being fetched never lacks in a majority for long. */
static void answer_candidate(struct consensus *c, const struct raft_wire *m)
{
	const struct raft_request_vote *v = &m->message.request_vote;
	const struct plog_marks *marks = plog_marks(c->log);
	uint64_t index = marks->seeding ? marks->given_up_index : plog_last_index(c->log);
	uint64_t term = marks->seeding ? marks->given_up_term : plog_last_term(c->log);
	if (v->term >= marks->term && !v->disrupt_leader &&
		loop_now_ms(c->env->loop) - c->install_heard_ms < c->guard.silence_ms)
		return;
	bool grant = v->term >= marks->term &&
		(v->last_log_term > term ||
			(v->last_log_term == term && v->last_log_index >= index));
	if (!v->pre_vote && v->term >= marks->term) {
		bool voted = v->term == marks->term && marks->vote != 0;
		if (voted && marks->vote != m->from)
			grant = false;
		if (v->term > marks->term || (grant && !voted))
			raft_io_mark(c, v->term, grant ? m->from : 0);
	}
	struct raft_address to = raft_address_of(m->address);
	struct raft_message answer = {.type = RAFT_IO_REQUEST_VOTE_RESULT,
		.server_id = m->from,
		.server_address = to.text};
	/* A candidate that is behind is told (G10). */
	answer.request_vote_result.term = v->term > marks->term ? v->term : marks->term;
	answer.request_vote_result.vote_granted = grant;
	answer.request_vote_result.pre_vote = v->pre_vote ? raft_tribool_true : raft_tribool_false;
	raft_send(c, &answer);
}

void raft_install_meanwhile(struct consensus *c, const struct raft_wire *m)
{
	if (m->message.type == RAFT_IO_APPEND_ENTRIES ||
		m->message.type == RAFT_IO_INSTALL_SNAPSHOT)
		answer_leader(c, m);
	else if (m->message.type == RAFT_IO_REQUEST_VOTE)
		answer_candidate(c, m);
}

void raft_install_resume(struct consensus *c)
{
	c->phase = PHASE_INSTALLING;
	c->install_at_ms = loop_now_ms(c->env->loop);
	c->install.index = plog_marks(c->log)->seeding_index;
	c->install.least = least_of(c->install.index, plog_marks(c->log)->given_up_index);
	c->guard.off = c->o.guard_off;
}
