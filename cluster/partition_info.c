/* A group as its leader sees it. */
#include "cluster/remote.h"

static void info_home(struct loop_msg *m)
{
	struct partition_info *i = list_entry(m, struct partition_info, msg);

	i->done(i);
}

void reads_info_end(struct partition_info *i, enum err e)
{
	i->err = e;
	i->msg.run = info_home;
	loop_post(i->to, &i->msg);
}

static void fill_fetch(const struct partition *p, struct partition_member *m)
{
	struct catchups *all = p->options.catchups;
	struct catchup_view v;

	if (all == NULL ||
		!catchups_given(all, p->options.group, (uint32_t)(m->replica >> 32), p->loop, &v))
		return;
	m->fetches = true;
	m->fetched = v.entries;
	m->fetched_total = v.entries_total;
	m->fetched_bytes = v.bytes;
}

/* By the next step of its membership; what is under way goes first. */
static void prefer(struct partition *p)
{
	uint32_t best = p->wanted_voters > 0 ? (uint32_t)(p->wanted_ids[0] >> 32) : 0;

	if (best != 0 && best != remote_leader(p))
		partition_step_aside(p, best);
}

void reads_info_fill(struct partition *p, struct partition_info *i)
{
	struct consensus_peer peers[PARTITION_MEMBERS_MAX];
	int count = consensus_peers(p->consensus, peers, PARTITION_MEMBERS_MAX);

	if (count > PARTITION_MEMBERS_MAX)
		count = PARTITION_MEMBERS_MAX;
	if (i->prefer)
		prefer(p);
	i->err = OK;
	i->term = p->term;
	i->last_index = plog_last_index(p->log);
	i->commit_index = consensus_commit(p->consensus);
	i->first_offset = partition_first_offset(p);
	i->high_watermark = partition_high_watermark(p);
	i->bytes = plog_bytes(p->log);
	i->leader = remote_leader(p);
	i->member_count = count;
	for (int n = 0; n < count; n++) {
		i->members[n] = (struct partition_member){.replica = peers[n].replica,
			.role = peers[n].role,
			.match_index = peers[n].match_index,
			.in_sync = peers[n].in_sync};
		fill_fetch(p, &i->members[n]);
	}
}

void reads_info(struct partition_info *i)
{
	struct partition *p = i->at;

	if (p->phase != PARTITION_OPEN) {
		reads_info_end(i, ERR_CLOSED);
	} else if (partition_unserved(p) != OK) {
		remote_info(i);
	} else {
		reads_info_fill(p, i);
		reads_info_end(i, OK);
	}
}

static void info_arrive(struct loop_msg *m)
{
	reads_info(list_entry(m, struct partition_info, msg));
}

void partition_ask_info(struct partition_info *i)
{
	i->to = loop_here();
	must(i->to != NULL);
	i->msg.run = info_arrive;
	loop_post(i->at->loop, &i->msg);
}
