"""${message}

The code of the release before must run on the schema this leaves behind: add in one release, remove in
the next. Replace a CHECK with NOT VALID, then VALIDATE. Never wait long for a lock: env.py sees to that.
"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    ${downgrades if downgrades else "raise NotImplementedError"}
