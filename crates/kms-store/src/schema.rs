//! The tables and columns for the query builder. `migrations/schema.sql` defines them; the
//! conformance tests read and write every column.

diesel::table! {
    accounts (id) {
        id -> Text,
        telegram_id -> BigInt,
        state -> Text,
        unfreezes_at -> Nullable<BigInt>,
        mobile -> Nullable<Binary>,
        email -> Nullable<Binary>,
        created_at -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
        email_verified_at -> Nullable<BigInt>,
        former_email -> Nullable<Binary>,
        former_email_until -> Nullable<BigInt>,
        recovered_at -> Nullable<BigInt>,
        page_only_since -> Nullable<BigInt>,
        page_only_until -> Nullable<BigInt>,
        created_by -> Nullable<Text>,
        revision -> BigInt,
    }
}

diesel::table! {
    email_changes (account_id) {
        account_id -> Text,
        email -> Binary,
        requested_at -> BigInt,
        tries -> Integer,
        codes_key -> Integer,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    proposals (action, subject) {
        action -> Text,
        subject -> Text,
        digest -> Binary,
        person -> Text,
        reason -> Text,
        proposed_at -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    switches (name) {
        name -> Text,
        paused -> Bool,
        changed_at -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    wallets (account_id) {
        account_id -> Text,
        address -> Text,
        public_key -> Binary,
        sealed_key -> Binary,
        kdf -> Text,
        salt -> Binary,
        password_version -> Integer,
        pepper_id -> Integer,
        commitment -> Binary,
        sck_id -> Text,
        wrapped_hash -> Binary,
        version -> BigInt,
    }
}

diesel::table! {
    names (id) {
        id -> BigInt,
        telegram_id -> BigInt,
        canonical -> Text,
        shown -> Text,
        position -> Integer,
        claimed_at -> BigInt,
        seen_at -> BigInt,
        proved_at -> Nullable<BigInt>,
        reassigned -> Bool,
        ended_at -> Nullable<BigInt>,
        previous -> Binary,
        revision -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    name_observations (telegram_id) {
        telegram_id -> BigInt,
        seen_at -> BigInt,
        proved_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    transfers (id) {
        id -> Text,
        chain_id -> BigInt,
        from_account -> Text,
        from_username -> Nullable<Text>,
        from_address -> Text,
        from_since -> Nullable<BigInt>,
        to_account -> Nullable<Text>,
        to_username -> Nullable<Text>,
        to_address -> Text,
        to_since -> Nullable<BigInt>,
        asked_to -> Text,
        asked_amount -> Text,
        value -> Text,
        gas_limit -> BigInt,
        ladder -> Text,
        warnings -> Text,
        client_ref -> Nullable<Text>,
        state -> Text,
        nonce -> Nullable<BigInt>,
        tx_hash -> Nullable<Binary>,
        block -> Nullable<BigInt>,
        fee -> Nullable<Text>,
        created_at -> BigInt,
        expires_at -> BigInt,
        nonce_held -> Nullable<Bool>,
        failure -> Nullable<Text>,
        cancel_requested_at -> Nullable<BigInt>,
        token -> Nullable<Text>,
        arrived -> Nullable<Text>,
    }
}

diesel::table! {
    signed_transactions (transfer_id, step) {
        transfer_id -> Text,
        step -> Integer,
        kind -> Text,
        fees -> Text,
        tx_hash -> Binary,
        sealed -> Nullable<Binary>,
        sent_at -> Nullable<BigInt>,
        sent_block -> Nullable<BigInt>,
    }
}

diesel::table! {
    transfer_waits (transfer_id) {
        transfer_id -> Text,
        reason -> Text,
        since -> BigInt,
    }
}

diesel::table! {
    replacements (id) {
        id -> Text,
        transfer_id -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    settlements (transfer_id) {
        transfer_id -> Text,
        chain_id -> BigInt,
        block -> BigInt,
        block_hash -> Binary,
        tx_hash -> Binary,
        outcome -> Text,
        fee -> Text,
        final_at -> Nullable<BigInt>,
        bytes_until -> Nullable<BigInt>,
        has_attempts -> Bool,
    }
}

diesel::table! {
    transfer_checks (transfer_id) {
        transfer_id -> Text,
        chain_id -> BigInt,
        next_at -> BigInt,
        done -> Integer,
    }
}

diesel::table! {
    spends (transfer_id) {
        transfer_id -> Text,
        account_id -> Text,
        asset -> Text,
        units -> Text,
        fee -> Text,
        unpaid_fee -> Nullable<Text>,
        at -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    spending_limits (account_id, asset) {
        account_id -> Text,
        asset -> Text,
        units -> Text,
        later -> Nullable<Text>,
        later_at -> Nullable<BigInt>,
        revision -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    events (seq) {
        seq -> BigInt,
        tx -> BigInt,
        account_id -> Text,
        at -> BigInt,
        stream -> Text,
        kind -> Text,
        transfer_id -> Nullable<Text>,
        deposit_id -> Nullable<Text>,
        recovery_id -> Nullable<Text>,
        contact -> Nullable<Binary>,
        telegram_id -> Nullable<BigInt>,
    }
}

diesel::table! {
    chain_cursors (chain_id) {
        chain_id -> BigInt,
        block -> BigInt,
        block_hash -> Binary,
        tip_hash -> Binary,
        read_at -> BigInt,
        rewinds -> BigInt,
    }
}

diesel::table! {
    wallet_balances (chain_id, account_id) {
        chain_id -> BigInt,
        account_id -> Text,
        block -> BigInt,
        balance -> Nullable<Text>,
        rewinds -> BigInt,
        active_at -> BigInt,
        next_at -> BigInt,
    }
}

diesel::table! {
    external_deposits (id) {
        id -> Text,
        chain_id -> BigInt,
        tx_hash -> Nullable<Binary>,
        account_id -> Text,
        from_address -> Nullable<Text>,
        value -> Text,
        block -> BigInt,
        count -> BigInt,
        digest_id -> Nullable<Text>,
        digest_day -> Nullable<BigInt>,
        digest_due_at -> Nullable<BigInt>,
        token -> Text,
        symbol -> Nullable<Text>,
        decimals -> Nullable<Integer>,
        recorded_at -> BigInt,
    }
}

diesel::table! {
    event_cursors (consumer) {
        consumer -> Text,
        tx -> BigInt,
        seq -> BigInt,
    }
}

diesel::table! {
    recoveries (id) {
        id -> Text,
        account_id -> Text,
        stage -> Text,
        code -> Text,
        code_until -> Nullable<BigInt>,
        code_tries -> Integer,
        codes_key -> Integer,
        moves_to -> Nullable<BigInt>,
        requested_at -> BigInt,
        ready_at -> BigInt,
        expires_at -> BigInt,
        version -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    password_attempts (account_id) {
        account_id -> Text,
        failures -> BigInt,
        locked_until -> BigInt,
    }
}

diesel::table! {
    rate_limits (key) {
        key -> Text,
        tat -> BigInt,
    }
}

diesel::table! {
    audit (seq) {
        seq -> BigInt,
        at -> BigInt,
        actor -> Text,
        request_id -> Text,
        action -> Text,
        subject -> Nullable<Text>,
        account_id -> Nullable<Text>,
        telegram_id -> Nullable<BigInt>,
        phase -> Text,
        outcome -> Nullable<Text>,
        details -> Text,
        chain_seq -> BigInt,
        prev_hash -> Binary,
        hash -> Binary,
        key_id -> Integer,
        keyed_hash -> Binary,
    }
}

diesel::table! {
    audit_head (id) {
        id -> Integer,
        chain_seq -> BigInt,
        hash -> Nullable<Binary>,
    }
}

diesel::table! {
    api_tokens (id) {
        id -> Text,
        name -> Text,
        hash -> Binary,
        scopes -> Text,
        created_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        revoked_at -> Nullable<BigInt>,
        last_used_at -> Nullable<BigInt>,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    launches (id) {
        id -> Text,
        key_hash -> Binary,
        message -> Text,
        signature -> Binary,
        opened_at -> BigInt,
        is_proof -> Bool,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    signs (account_id) {
        account_id -> Text,
        sign -> Text,
    }
}

diesel::table! {
    orphaned_scks (sck_id) {
        sck_id -> Text,
        since -> BigInt,
        mac_key -> Integer,
        mac -> Binary,
    }
}

diesel::table! {
    server_key_checks (kind, key_id) {
        kind -> Text,
        key_id -> Integer,
        check_value -> Binary,
    }
}

diesel::table! {
    key_database_claim (id) {
        id -> Integer,
        current -> Nullable<Text>,
        next -> Nullable<Text>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(api_tokens, audit);

diesel::allow_tables_to_appear_in_same_query!(
    accounts,
    wallets,
    names,
    transfers,
    signed_transactions,
    settlements,
    events,
    external_deposits,
    wallet_balances,
    spending_limits,
    name_observations,
    chain_cursors
);
